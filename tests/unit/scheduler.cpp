// SPDX-License-Identifier: Apache-2.0
#include "scheduler.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace model {
namespace {

constexpr size_t kStackSize = 128 * 1024;
constexpr long kMostSteps = 100000;  // an execution with more of them never ends

}  // namespace

Scheduler scheduler;

// ---- the explorers ----

int Exhaustive::pick(int options, int free) {
  if (spent_ >= bound_) {
    options = free;
    if (options == 1) return 0;
  }
  if (position_ == decisions_.size()) {
    decisions_.push_back({0, static_cast<uint8_t>(options), static_cast<uint8_t>(free)});
  }
  const Decision& decision = decisions_[position_++];
  if (decision.taken >= decision.free) ++spent_;
  return decision.taken;
}

bool Exhaustive::goes_on() {
  if (spent_ >= bound_) return true;
  if (position_ == decisions_.size() || decisions_[position_].taken != 0) return false;
  ++position_;
  return true;
}

bool Exhaustive::next() {
  position_ = 0;
  spent_ = 0;
  while (!decisions_.empty()) {
    Decision& last = decisions_.back();
    if (++last.taken < last.options) return true;
    decisions_.pop_back();
  }
  return false;
}

std::string Exhaustive::name() const {
  std::string text = "at most " + std::to_string(bound_) + " preemptions; decisions:";
  for (size_t i = 0; i < position_; ++i) {
    if (decisions_[i].taken != 0) {
      text += " " + std::to_string(i) + ":" + std::to_string(decisions_[i].taken);
    }
  }
  return text;
}

void Random::start() {
  random_.seed(seed_);
  static constexpr unsigned kRates[] = {3, 8, 20, 50};
  one_in_ = kRates[random_() % 4];
}

int Random::pick(int options, int free) {
  if (options == free || random_() % one_in_ != 0) {
    return static_cast<int>(random_() % static_cast<unsigned>(free));
  }
  return free + static_cast<int>(random_() % static_cast<unsigned>(options - free));
}

bool Random::next() {
  ++seed_;
  start();
  return --left_ > 0;
}

std::string Random::name() const { return "seed " + std::to_string(seed_); }

// ---- the scheduler ----

void Scheduler::start(Explorer* explorer, int stalls) {
  explorer_ = explorer;
  stalls_left_ = stalls;
  stalled_ = false;
  now_ = kMillisecond;
  lost_ = 0;
  steps_ = 0;
  failure_.clear();
}

void Scheduler::prepare(Thread* thread, char* stack) {
  memset(&thread->state, 0, sizeof thread->state);
  getcontext(&thread->context);
  thread->context.uc_stack.ss_sp = stack;
  thread->context.uc_stack.ss_size = kStackSize;
  thread->context.uc_link = nullptr;
  makecontext(&thread->context, &Scheduler::run_current, 0);
}

bool Scheduler::run(std::vector<Thread>* threads) {
  threads_ = threads;
  for (size_t i = 0; i < threads->size(); ++i) {
    if (stacks_.size() <= i) stacks_.emplace_back(new char[kStackSize]);
    prepare(&(*threads)[i], stacks_[i].get());
  }
  current_ = nullptr;
  alone_ = false;
  Thread* first = choose();
  if (first != nullptr) {
    current_ = first;
    forksafe::model_thread_state = &first->state;
    swapcontext(&main_, &first->context);
  }
  alone_ = true;
  current_ = nullptr;
  return failure_.empty();
}

void Scheduler::run_current() {
  Scheduler& s = scheduler;
  s.deliver_signals();
  s.current_->body();
  s.current_->status = Thread::kDone;
  s.reschedule();
}

void Scheduler::switch_to(Thread* thread) {
  Thread* self = current_;
  current_ = thread;
  forksafe::model_thread_state = &thread->state;
  swapcontext(&self->context, &thread->context);
}

void Scheduler::reschedule() {
  Thread* next = choose();
  if (next == nullptr) {
    setcontext(&main_);  // all are done, or a property does not hold
  } else if (next != current_) {
    switch_to(next);
  }
}

void Scheduler::deliver_signals() {
  while (current_->signal_pending && current_->mask == 0 && !current_->in_handler) {
    Thread* self = current_;
    self->signal_pending = false;
    self->in_handler = true;
    self->on_signal();
    self->in_handler = false;
  }
}

void Scheduler::pass_time(int64_t until) {
  now_ = until;
  for (Thread& thread : *threads_) {
    if (thread.status == Thread::kWaiting && thread.deadline <= now_) {
      thread.status = Thread::kReady;
    }
  }
}

void Scheduler::trace(int what, const Thread* thread) {
  if (what == Option::kRun && thread == current_) return;
  fprintf(stderr, "step %ld, %ld ms: %s%s\n", steps_, static_cast<long>(now_ / kMillisecond),
          what == Option::kSignal  ? "a signal for "
          : what == Option::kStall ? "time moves"
                                   : "",
          thread != nullptr ? thread->name.c_str() : "");
}

// The thread that takes the next step. Null if all threads are done, or if none can ever run again.
Thread* Scheduler::choose() {
  for (;;) {
    Option options[16];
    int count = 0;
    const bool goes_on = current_ != nullptr && current_->status == Thread::kReady;
    // Most steps end here.
    if (goes_on && explorer_->goes_on()) return current_;
    if (goes_on) options[count++] = {Option::kRun, current_};
    bool all_done = true;
    int64_t next_deadline = INT64_MAX;
    for (Thread& thread : *threads_) {
      all_done = all_done && thread.status == Thread::kDone;
      if (thread.status == Thread::kReady && &thread != current_) {
        options[count++] = {Option::kRun, &thread};
      }
      if (thread.status == Thread::kWaiting && thread.deadline < next_deadline) {
        next_deadline = thread.deadline;
      }
    }
    if (all_done) return nullptr;
    const bool anybody = count != 0;
    if (!anybody) {
      if (next_deadline == INT64_MAX) {
        std::string who;
        for (const Thread& thread : *threads_) {
          if (thread.status == Thread::kWaiting) who += " " + thread.name;
        }
        failure_ = "deadlock of" + who;
        return nullptr;
      }
      options[count++] = {Option::kStall, nullptr};
    }
    const int free = goes_on ? 1 : count;
    for (Thread& thread : *threads_) {
      if (thread.signals > 0 && thread.status != Thread::kDone && !thread.in_handler &&
          thread.mask == 0) {
        options[count++] = {Option::kSignal, &thread};
      }
    }
    if (anybody && stalls_left_ > 0 && next_deadline != INT64_MAX) {
      options[count++] = {Option::kStall, nullptr};
    }
    const Option& option = options[explorer_->pick(count, free)];
    if (trace_) trace(option.what, option.thread);
    if (option.what == Option::kRun) return option.thread;
    if (option.what == Option::kSignal) {
      --option.thread->signals;
      option.thread->signal_pending = true;
      option.thread->status = Thread::kReady;
      return option.thread;
    }
    if (anybody) {
      --stalls_left_;
      stalled_ = true;
    } else if (next_deadline > now_) {
      lost_ += next_deadline - now_;
    }
    pass_time(next_deadline > now_ ? next_deadline : now_);
  }
}

void Scheduler::send_signal(Thread* thread) {
  step();
  if (thread->status == Thread::kDone) return;
  thread->signal_pending = true;
  if (thread->status == Thread::kWaiting && thread->mask == 0 && !thread->in_handler) {
    thread->status = Thread::kReady;
  }
}

void Scheduler::leave() {
  current_->status = Thread::kDone;
  reschedule();
  abort();  // nobody runs a thread that is done
}

void Scheduler::fail(const std::string& property) {
  if (failure_.empty()) failure_ = property;
  if (current_ != nullptr) setcontext(&main_);
}

void Scheduler::step() {
  if (alone_) return;
  if (++steps_ > kMostSteps) fail("the threads run for ever");
  reschedule();
  deliver_signals();
}

void Scheduler::wait(const forksafe::Atomic<uint32_t>* word, uint32_t value, int64_t deadline) {
  if (!alone_) step();
  if (word->peek() != value || deadline <= now_) return;
  if (alone_) {
    fail("a thread waits where nobody else is left");
    return;
  }
  current_->status = Thread::kWaiting;
  current_->word = word;
  current_->deadline = deadline;
  reschedule();
  deliver_signals();
}

void Scheduler::wake(const void* word) {
  step();
  if (alone_) return;
  for (Thread& thread : *threads_) {
    if (thread.status == Thread::kWaiting && thread.word == word) thread.status = Thread::kReady;
  }
}

}  // namespace model

namespace forksafe {

void model_step() { model::scheduler.step(); }
int64_t monotonic_ns() { return model::scheduler.now(); }
void futex_wait_until(Atomic<uint32_t>* word, uint32_t value, int64_t deadline) {
  model::scheduler.wait(word, value, deadline);
}
void futex_wake_all(Atomic<uint32_t>* word) { model::scheduler.wake(word); }

void set_signal_mask(uint64_t mask) {
  model::scheduler.step();
  model::Thread* thread = model::scheduler.current();
  if (thread == nullptr) return;
  thread->mask = mask;
  if (!model::scheduler.alone()) model::scheduler.deliver_signals();
}

void add_to_signal_mask(uint64_t signals, uint64_t* old) {
  model::scheduler.step();
  model::Thread* thread = model::scheduler.current();
  if (thread == nullptr) return;
  *old = thread->mask;
  thread->mask |= signals;
}

}  // namespace forksafe
