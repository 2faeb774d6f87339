// SPDX-License-Identifier: Apache-2.0
// Runs a few threads of a model in every order that matters, on virtual time.
//
// The threads are coroutines in one OS thread. Before each step (model_primitives.h) the scheduler
// decides who takes it. Time stands still as long as anybody can run; then it moves to the next
// deadline. An execution is a list of decisions, so it can be run again.
//
// Two ways to explore: all executions in which at most N threads are preempted (Musuvathi and
// Qadeer, "Iterative context bounding", 2007), and random ones from a seed.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "doors/module.h"

namespace model {

constexpr int64_t kMillisecond = 1000000;

/// Decides between the options at one point of an execution. Each option after the first `free`
/// ones is a preemption.
class Explorer {
 public:
  virtual ~Explorer() = default;
  virtual int pick(int options, int free) = 0;
  /// Decides the same where the thread that runs may go on: true if it goes on, and pick() is not
  /// asked. False if that is not known without the number of options.
  virtual bool goes_on() { return false; }
  /// Prepares the next execution. False when there is none.
  virtual bool next() = 0;
  /// Prepares the same execution once more.
  virtual void again() = 0;
  /// What leads to the execution under way, for a person to read.
  virtual std::string name() const = 0;
};

/// All executions with at most `preemptions`.
class Exhaustive : public Explorer {
 public:
  explicit Exhaustive(int preemptions) : bound_(preemptions) {}
  int pick(int options, int free) override;
  bool goes_on() override;
  bool next() override;
  void again() override { position_ = 0, spent_ = 0; }
  std::string name() const override;

 private:
  struct Decision {
    uint8_t taken, options, free;
  };
  int bound_, spent_ = 0;
  size_t position_ = 0;
  std::vector<Decision> decisions_;
};

/// `executions` random ones: the same for the same seed.
class Random : public Explorer {
 public:
  Random(uint64_t seed, long executions) : seed_(seed), left_(executions) { start(); }
  int pick(int options, int free) override;
  bool next() override;
  void again() override { start(); }
  std::string name() const override;

 private:
  void start();
  uint64_t seed_;
  long left_;
  std::mt19937_64 random_;
  unsigned one_in_ = 1;  // how often a thread is preempted
};

/// A thread of the model.
struct Thread {
  std::string name;
  std::function<void()> body;
  /// How many signals it may get, and their handler.
  int signals = 0;
  std::function<void()> on_signal;

  forksafe::ThreadState state;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  enum { kReady, kWaiting, kDone } status = kReady;
  const void* word = nullptr;
  int64_t deadline = 0;
  uint64_t mask = 0;
  bool signal_pending = false;
  bool in_handler = false;
};

class Scheduler {
 public:
  /// Starts an execution.
  void start(Explorer* explorer, int stalls);
  /// Runs the threads until all are done. False when a property does not hold.
  bool run(std::vector<Thread>* threads);

  // For the threads.
  void step();
  void wait(const forksafe::Atomic<uint32_t>* word, uint32_t value, int64_t deadline);
  void wake(const void* word);
  /// A signal for `thread`, which has a handler. It is delivered when the thread does not block it.
  void send_signal(Thread* thread);
  /// Runs the handler, if a signal has come that is not blocked.
  void deliver_signals();
  /// The calling thread ends here, as far as the model sees: it has left by a longjmp.
  [[noreturn]] void leave();
  /// Ends the execution. Does not return where a thread calls it.
  void fail(const std::string& property);

  /// Nobody else runs: in a child, and when all threads are done. To wait is a failure then.
  void set_alone(bool alone) { alone_ = alone; }
  bool alone() const { return alone_; }

  Thread* current() { return current_; }
  std::vector<Thread>& threads() { return *threads_; }
  int64_t now() const { return now_; }
  /// How much time has passed while nobody could run.
  int64_t lost() const { return lost_; }
  const std::string& failure() const { return failure_; }
  long steps() const { return steps_; }
  bool stalled() const { return stalled_; }

  /// Prints who runs, where that changes.
  void set_trace(bool trace) { trace_ = trace; }

 private:
  struct Option {
    enum { kRun, kSignal, kStall } what;
    Thread* thread;
  };
  static void prepare(Thread* thread, char* stack);
  Thread* choose();
  void trace(int what, const Thread* thread);
  void reschedule();
  void switch_to(Thread* thread);
  void pass_time(int64_t until);
  static void run_current();

  Explorer* explorer_ = nullptr;
  std::vector<Thread>* threads_ = nullptr;
  Thread* current_ = nullptr;
  ucontext_t main_;
  std::vector<std::unique_ptr<char[]>> stacks_;
  int64_t now_ = 0, lost_ = 0;
  long steps_ = 0;
  int stalls_left_ = 0;
  bool stalled_ = false, alone_ = true, trace_ = false;
  std::string failure_;
};

extern Scheduler scheduler;

}  // namespace model
