// SPDX-License-Identifier: Apache-2.0
#include "verdicts/other_threads.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "base/words.h"

namespace forksafe::cli {
namespace {

// A library that starts threads for others: its own function is the outermost one on their stacks.
// It also waits for others: std::condition_variable::wait is one of its functions.
bool is_go_between(const Object& object) {
  for (const char* name : {"libstdc++.so", "libc++.so", "libc++abi.so", "libglib-2.0.so"}) {
    if (starts_with(object.name(), name)) return true;
  }
  return is_c_library(object);
}

bool is_python(const Object& object) { return object.defines("_PyEval_EvalFrameDefault"); }

// The object for which the thread was started.
const Object* starter_of(const ThreadStack& stack) {
  for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
    if (frame->object != nullptr && !is_go_between(*frame->object)) return frame->object;
  }
  return nullptr;
}

// Libraries whose threads no child misses. That a library registers fork handlers says little:
// polars has those of its memory allocator, and hangs.
bool starts_again_in_children(const Object& object) {
  // Apache Arrow 26, cpp/src/arrow/util/thread_pool.cc: a child makes new threads.
  return starts_with(object.name(), "libarrow.so");
}

bool is_worker_of_any(const std::vector<ThreadRuntime>& runtimes, const ThreadStack& stack,
                      const Object& starter) {
  return std::any_of(runtimes.begin(), runtimes.end(), [&](const ThreadRuntime& r) {
    const bool is_its_tbb =
        r.threading == Threading::kTbb && starts_with(starter.name(), "libtbb.");
    const bool is_its_own = r.object == &starter && !r.linked_in;
    return is_its_tbb || is_its_own || is_worker_of(r, stack);
  });
}

int count_started(const std::vector<ThreadStack>& stacks, pid_t main, const Object& object) {
  return static_cast<int>(
      std::count_if(stacks.begin(), stacks.end(), [&](const ThreadStack& stack) {
        const Object* starter = starter_of(stack);
        return stack.tid != main && starter != nullptr && starter->base() == object.base() &&
               starter->path() == object.path();
      }));
}

// How many threads of the object the parent has: those that the child waits for. 0 if the parent
// has ended or may not be read.
int count_in_parent(const Process& child, const Object& object,
                    const StacksOfParent& stacks_of_parent) {
  const std::vector<ThreadStack>* stacks = stacks_of_parent();
  return stacks != nullptr ? count_started(*stacks, child.status().parent, object) : 0;
}

bool is_fork(const Frame& frame) {
  return frame.object != nullptr && is_c_library(*frame.object) &&
         frame.function.find("fork") != std::string::npos;
}

// None if the stack has no object that could be named.
std::optional<LostWait> describe_wait(const ThreadStack& stack) {
  const auto end = stack.frames.end();
  const auto innermost = std::find_if(stack.frames.begin(), end, [](const Frame& f) {
    return f.object == nullptr || !is_go_between(*f.object);
  });
  if (innermost == end || innermost->object == nullptr) return std::nullopt;
  LostWait wait;
  wait.tid = stack.tid;
  wait.object = innermost->object;
  wait.is_python = wait.object->is(is_python);
  wait.function = innermost->function;
  // Rust's mangled names tell a user less than the object. C++'s are demangled.
  if (starts_with(wait.function, "_R")) wait.function.clear();
  // A handler that ends in a jump to the C library's function has left no frame.
  wait.in_fork = wait.is_hidden = std::any_of(stack.frames.begin(), innermost, is_fork);
  auto frame =
      std::find_if(innermost, end, [&](const Frame& f) { return f.object != wait.object; });
  for (; frame != end && frame->object != nullptr && is_c_library(*frame->object); ++frame) {
    wait.in_fork = wait.in_fork || is_fork(*frame);
  }
  return wait;
}

// The function of Python in which the thread waits for Python's global lock, or null if it does
// not. take_gil waits for 5 ms, and again and again. It has no name in a stripped file, but its
// callers have (CPython 3.9 to 3.14, Python/ceval_gil.c and pystate.c).
const std::string* waits_for_gil_in(const ThreadStack& stack) {
  if (!waits_for_thread_or_timeout(stack)) return nullptr;
  auto frame = std::find_if(stack.frames.begin(), stack.frames.end(), [](const Frame& f) {
    return f.object == nullptr || !is_c_library(*f.object);
  });
  constexpr int kMostCallers = 4;
  for (int i = 0; i < kMostCallers && frame != stack.frames.end(); ++i, ++frame) {
    if (frame->object == nullptr || !frame->object->is(is_python)) return nullptr;
    const std::string& name = frame->function;
    if (starts_with(name, "take_gil") || name == "PyEval_RestoreThread" ||
        name == "PyEval_AcquireThread" || name == "PyEval_AcquireLock") {
      return &name;
    }
  }
  return nullptr;
}

}  // namespace

std::vector<OtherThreads> find_other_threads(const Process& process, const Objects& objects,
                                             const std::vector<ThreadStack>& stacks,
                                             const std::vector<ThreadRuntime>& runtimes) {
  std::vector<OtherThreads> result;
  int unreadable = 0;
  for (const ThreadStack& stack : stacks) {
    if (stack.tid == process.pid()) continue;
    const Object* starter = starter_of(stack);
    const bool is_complete = !stack.frames.empty() && stack.frames.back().object != nullptr;
    if (starter == nullptr && !is_complete) ++unreadable;
    if (starter == nullptr || starter->is(is_python)) continue;
    if (is_worker_of_any(runtimes, stack, *starter)) continue;
    const auto known = std::find_if(result.begin(), result.end(), [&](const OtherThreads& other) {
      return other.object == starter;
    });
    if (known != result.end()) {
      ++known->count;
    } else {
      result.push_back(
          {starter, 1, starter == objects.program(), starts_again_in_children(*starter)});
    }
  }
  std::sort(result.begin(), result.end(), [](const OtherThreads& a, const OtherThreads& b) {
    return a.object->base() < b.object->base();
  });
  if (unreadable > 0) result.push_back({nullptr, unreadable, false, false});
  return result;
}

std::string describe(const OtherThreads& threads) {
  const char* plural = threads.count == 1 ? "" : "s";
  if (threads.object == nullptr) {
    return fmt::format("{} thread{} whose stack can't be read", threads.count, plural);
  }
  if (threads.is_program) return fmt::format("{} thread{} of its own", threads.count, plural);
  return fmt::format("{} thread{} of {}", threads.count, plural, threads.object->name());
}

bool runs_python(const Objects& objects) {
  return std::any_of(objects.begin(), objects.end(),
                     [](const auto& object) { return object->is(is_python); });
}

bool handles_signals(const Process& process, const Objects& objects) {
  if (process.core() != nullptr) return false;
  // glibc's for 32 and 33: nptl, SIGCANCEL and SIGSETXID.
  constexpr int kOthers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, 32, 33};
  unsigned long long caught = 0;
  std::ifstream status(fmt::format("/proc/{}/status", process.pid()));
  for (std::string line; std::getline(status, line);) {
    if (sscanf(line.c_str(), "SigCgt: %llx", &caught) == 1) break;
  }
  for (const int signal : kOthers) caught &= ~(1ULL << (signal - 1));
  if (runs_python(objects)) caught &= ~(1ULL << (SIGINT - 1));
  return caught != 0;
}

bool waits_for_thread(const ThreadStack& stack) {
  const FutexWait wait = futex_wait(stack.system_call);
  if (wait == FutexWait::kPrivate) return true;
  if (wait != FutexWait::kShared) return false;
  // The kernel wakes who joins a thread by a futex that is not private (clone(2),
  // CLONE_CHILD_CLEARTID). Other futexes like that may be in memory shared with other processes.
  return std::any_of(stack.frames.begin(), stack.frames.end(), [](const Frame& frame) {
    return frame.object != nullptr && is_c_library(*frame.object) &&
           frame.function.find("join") != std::string::npos;
  });
}

bool waits_for_thread_or_timeout(const ThreadStack& stack) {
  return waits_for_thread(stack) || futex_wait(stack.system_call) == FutexWait::kPrivateTimed;
}

int count_lost_threads(const Process& child, const std::vector<ThreadStack>& stacks,
                       const Object& object, const StacksOfParent& stacks_of_parent) {
  if (count_started(stacks, child.pid(), object) != 0) return 0;
  return count_in_parent(child, object, stacks_of_parent);
}

std::optional<LostWait> find_lost_wait(const Process& process, const Objects& objects,
                                       const std::vector<ThreadStack>& stacks,
                                       const std::vector<pid_t>& asleep,
                                       const StacksOfParent& stacks_of_parent) {
  const auto waits = [&](const ThreadStack& stack) {
    return std::find(asleep.begin(), asleep.end(), stack.tid) != asleep.end() &&
           waits_for_thread(stack);
  };
  // If all threads wait, none can wake another. Then only a signal could end their waits: a handler
  // may call sem_post, or set Python's threading.Event.
  const bool all_wait = std::all_of(stacks.begin(), stacks.end(), waits);
  const bool handles = handles_signals(process, objects);
  const bool nobody_wakes = all_wait && !handles;
  // Python runs the program's handlers in its main thread, when that is back from the library.
  const bool handler_wakes = handles && !runs_python(objects);
  for (const ThreadStack& stack : stacks) {
    if (!waits(stack)) continue;
    std::optional<LostWait> wait = describe_wait(stack);
    if (!wait) continue;
    if (!process.status().forked) {
      if (wait->in_fork && nobody_wakes) return wait;
      continue;
    }
    if (wait->is_python || count_started(stacks, process.pid(), *wait->object) == 0) {
      wait->in_parent = count_in_parent(process, *wait->object, stacks_of_parent);
    }
    const bool lost_pool = wait->in_parent > 0 && !wait->is_python &&
                           wait->object != objects.program() && wait->tid == process.pid();
    wait->others_run = !all_wait;
    wait->handles_signals = handler_wakes;
    // Python may wait for SIGINT, whose handler it always has.
    if (lost_pool || (nobody_wakes && (!wait->is_python || wait->in_parent > 0))) return wait;
  }
  return std::nullopt;
}

std::optional<LostWait> find_timed_wait(const Process& process, const Objects& objects,
                                        const std::vector<ThreadStack>& stacks,
                                        const StacksOfParent& stacks_of_parent) {
  const bool all_wait = std::all_of(stacks.begin(), stacks.end(), waits_for_thread_or_timeout);
  if (!process.status().forked || !all_wait || handles_signals(process, objects)) {
    return std::nullopt;
  }
  const auto main = std::find_if(stacks.begin(), stacks.end(), [&](const ThreadStack& stack) {
    return stack.tid == process.pid();
  });
  if (main == stacks.end() || waits_for_thread(*main)) return std::nullopt;
  std::optional<LostWait> wait = describe_wait(*main);
  if (!wait || wait->is_python || wait->object == objects.program()) return std::nullopt;
  wait->in_parent = count_lost_threads(process, stacks, *wait->object, stacks_of_parent);
  if (wait->in_parent == 0) return std::nullopt;
  return wait;
}

std::optional<LostWait> find_gil_wait(const Process& process,
                                      const std::vector<ThreadStack>& stacks) {
  if (!process.status().forked || stacks.empty()) return std::nullopt;
  const auto function = waits_for_gil_in(stacks.front());
  if (!function || !std::all_of(stacks.begin() + 1, stacks.end(), waits_for_gil_in)) {
    return std::nullopt;
  }
  std::optional<LostWait> wait = describe_wait(stacks.front());
  if (!wait) return std::nullopt;
  wait->function = *function;
  wait->in_parent = 1;  // its holder
  return wait;
}

std::optional<LostWait> find_handler_wait(const std::vector<ThreadStack>& stacks,
                                          const std::vector<pid_t>& asleep) {
  for (const ThreadStack& stack : stacks) {
    if (std::find(asleep.begin(), asleep.end(), stack.tid) == asleep.end()) continue;
    std::optional<LostWait> wait = describe_wait(stack);
    if (wait && wait->in_fork && waits_for_thread(stack)) return wait;
  }
  return std::nullopt;
}

bool is_in_fork(const ThreadStack& stack) {
  return std::any_of(stack.frames.begin(), stack.frames.end(), is_fork);
}

}  // namespace forksafe::cli
