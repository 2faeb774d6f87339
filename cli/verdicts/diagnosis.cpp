// SPDX-License-Identifier: Apache-2.0
#include "verdicts/diagnosis.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/words.h"
#include "process/core.h"
#include "process/limits.h"
#include "verdicts/lone_spin.h"

namespace forksafe::cli {
namespace {

// After a look, the threads have kSettle to go back to their waits, and up to kMostSettles times
// that if one has not got a processor yet. There they must stay for kStill.
constexpr std::chrono::milliseconds kSettle(20);
constexpr int kMostSettles = 25;
constexpr std::chrono::milliseconds kStill(100);

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

const ThreadRuntime* runtime_of(const Look& look, const Frame& frame) {
  const Object* object = frame.object;
  for (const ThreadRuntime& r : look.runtimes) {
    if (r.object == object && has_function(r, frame.function)) return &r;
    // MKL is several objects: its layers, and the TBB that it computes with.
    if (r.kind == Kind::kMkl && object != nullptr &&
        (starts_with(object->name(), "libmkl_") || starts_with(object->name(), "libtbb."))) {
      return &r;
    }
  }
  return nullptr;
}

bool is_worker(const Look& look, const ThreadStack& stack) {
  for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
    if (frame->object == nullptr || is_c_library(*frame->object)) continue;
    return runtime_of(look, *frame) != nullptr;
  }
  return false;
}

// Without the suffix that GCC adds to clones of a function.
std::string plain_name(const std::string& function) {
  return function.substr(0, function.find('.'));
}

// Whether runtimes are known to wait in this function.
bool is_known_place(const std::string& function) {
  for (const char* name : {"exec_blas", "blas_thread_shutdown", "blas_memory_", "gemm_driver",
                           "GOMP_", "omp_", "__kmp"}) {
    if (starts_with(function, name)) return true;
  }
  return false;
}

std::optional<Wait> find_wait(const Look& look, const ThreadStack& stack) {
  Wait wait;
  wait.tid = stack.tid;
  size_t i = 0;
  for (; i < stack.frames.size(); ++i) {
    const Frame& frame = stack.frames[i];
    if (frame.object == nullptr) break;
    if (frame.object->is(is_forksafe)) continue;
    if (!is_c_library(*frame.object)) break;
    wait.in_c_library = true;
    wait.system_call = frame.function;
  }
  if (i == stack.frames.size()) return std::nullopt;
  wait.runtime = runtime_of(look, stack.frames[i]);
  if (wait.runtime == nullptr) return std::nullopt;
  wait.object = stack.frames[i].object->name();
  bool in_first_run = true;
  for (; i < stack.frames.size(); ++i) {
    const Frame& frame = stack.frames[i];
    const ThreadRuntime* runtime = runtime_of(look, frame);
    if (runtime == nullptr) break;
    const std::string name = plain_name(frame.function);
    if (runtime != wait.called) wait.entry.clear();
    in_first_run = in_first_run && runtime == wait.runtime;
    wait.called = runtime;
    wait.stack = frame.stack;
    if (name.empty()) continue;
    wait.functions.push_back(name);
    wait.entry = name;
    wait.entry_object = frame.object->name();
    // Prefer the innermost known place, otherwise the innermost name.
    if (in_first_run &&
        (wait.function.empty() || (is_known_place(name) && !is_known_place(wait.function)))) {
      wait.function = name;
    }
  }
  // GOMP_barrier ends in a jump to a function without a name. Then name the region around it.
  for (size_t k = i; k < stack.frames.size() && wait.function.empty(); ++k) {
    if (stack.frames[k].object == wait.runtime->object && wait.runtime->is_openmp()) {
      wait.function = plain_name(stack.frames[k].function);
    }
  }
  for (; i < stack.frames.size(); ++i) {
    const Frame& frame = stack.frames[i];
    if (frame.object == nullptr || !is_c_library(*frame.object)) break;
    if (contains(frame.function, "fork")) wait.in_fork = true;
    if (contains(frame.function, "exit")) wait.in_exit = true;
  }
  wait.is_worker = stack.tid != look.process.pid() && is_worker(look, stack);
  return wait;
}

// How often a thread has gone to sleep so far, and whether it sleeps now. In a core, and before the
// first look: whether it slept then.
struct Sleep {
  long switches = -1;
  bool asleep = false;
};

Sleep read_sleep(pid_t pid, pid_t tid) {
  const ThreadState state = read_thread_state(pid, tid);
  return {state.switches, state.letter == 'S'};
}

// A thread spins if kSpinSamples samples all lie within kSpinBytes of code. When kSpinPatience
// ends, as it does on a busy machine only, kFewestSamples will do. Of a thread that only spends
// much of its time there, five samples were seen at one place. The loop of a BLAS kernel is larger.
// The begin and end of an empty critical section, which take nearly all of its time, are further
// apart.
constexpr uintptr_t kSpinBytes = 32;
constexpr int kSpinSamples = 60;
constexpr int kFewestSamples = 20;
constexpr size_t kSpinFrames = 8;
constexpr uint64_t kSpinRunNs = 50 * 1000;  // CPU time between two samples
constexpr auto kSpinPause = std::chrono::microseconds(200);
constexpr auto kSpinPatience = std::chrono::seconds(5);

// Whether the address of a frame is just after a system call. GNU OpenMP has the instruction in its
// own code on x86, Power and s390 (config/linux/*/futex.h), and calls libc elsewhere. A thread in a
// system call stops there.
bool is_behind_system_call(const Frame& frame) {
#if defined(__x86_64__)
  constexpr char kCall[] = "\x0f\x05";  // syscall
#elif defined(__i386__)
  constexpr char kCall[] = "\xcd\x80";  // int 0x80
#elif defined(__powerpc64__)
  constexpr char kCall[] = "\x02\x00\x00\x44";  // sc
#elif defined(__s390x__)
  constexpr char kCall[] = "\x0a\xee";  // svc 238: futex
#else
  constexpr char kCall[] = "";
#endif
  constexpr size_t kSize = sizeof kCall - 1;
  const void* before = kSize != 0 ? frame.object->constant(frame.address - kSize, kSize) : nullptr;
  return before != nullptr && memcmp(before, kCall, kSize) == 0;
}

// Whether the innermost frame is in a PLT stub of its object: a jump through the GOT into another
// object. A thread that calls sched_yield in a loop is seen there about once in 10,000 samples.
bool is_in_plt(const Frame& frame) {
#if defined(__x86_64__)
  const auto is_at = [&](const char* code, size_t size, size_t offset) {
    const void* found = frame.object->constant(frame.address + offset, size);
    return found != nullptr && memcmp(found, code, size) == 0;
  };
  const size_t jump = is_at("\xf3\x0f\x1e\xfa", 4, 0) ? 4 : 0;  // endbr64
  return is_at("\xff\x25", 2, jump) || is_at("\xf2\xff\x25", 3, jump);
#elif defined(__aarch64__)
  // adrp x16; ldr x17; add x16; br x17
  for (size_t offset = 0; offset < 16; offset += 4) {
    const void* found = frame.object->constant(frame.address + offset, 4);
    if (found != nullptr && memcmp(found, "\x20\x02\x1f\xd6", 4) == 0) return true;
  }
  return false;
#else
  (void)frame;
  return false;
#endif
}

// Tells of threads that do not sleep whether they spin, or call sched_yield, at one place. A thread
// that calls the runtime again and again may be seen at the same place twice, but it leaves that
// place.
//
// Sampling takes long on a busy machine. So the rules are applied to all processes, then all
// threads that they have asked for are sampled at the same time, and the rules are applied again.
class Spins {
 public:
  // False as long as it is not known. A core does not tell.
  bool of(const Look& look, const Wait& wait) {
    if (look.process.core() != nullptr) return false;
    const auto [entry, is_new] = threads_.try_emplace(wait.tid, Thread{&look, wait});
    is_complete_ = is_complete_ && entry->second.sampled;
    return entry->second.sampled && entry->second.stays && entry->second.samples >= kFewestSamples;
  }

  // Whether all answers since the last call were known.
  bool take_complete() { return std::exchange(is_complete_, true); }

  // Samples all threads that were asked for and are not known.
  void sample() {
    std::vector<Thread*> threads;
    std::vector<Sampled> targets;
    for (auto& [tid, thread] : threads_) {
      if (std::exchange(thread.sampled, true)) continue;
      threads.push_back(&thread);
      targets.push_back({&thread.look->process, &thread.look->objects, tid});
    }
    sample_stacks(targets, {kSpinFrames, kSpinRunNs, kSpinPause, kSpinPatience},
                  [&](size_t i, const Sample& sample) {
                    Thread& t = *threads[i];
                    t.stays = t.is_at_place(sample.frames);
                    return t.stays && ++t.samples < kSpinSamples;
                  });
  }

 private:
  struct Thread {
    Thread(const Look* its_look, Wait its_wait) : look(its_look), wait(std::move(its_wait)) {}

    bool is_at_place(const std::vector<Frame>& frames) {
      const auto* const innermost = frames.data();
      const auto frame = std::find_if(frames.begin(), frames.end(), [&](const Frame& f) {
        return f.object == nullptr ||
               !(is_c_library(*f.object) || (&f == innermost && is_in_plt(f)));
      });
      if (frame == frames.end() || runtime_of(*look, *frame) != wait.runtime ||
          is_behind_system_call(*frame)) {
        return false;
      }
      lowest = std::min(lowest, frame->address);
      highest = std::max(highest, frame->address);
      return highest - lowest <= kSpinBytes;
    }

    const Look* look;
    Wait wait;
    bool sampled = false;
    bool stays = true;
    int samples = 0;
    uintptr_t lowest = UINTPTR_MAX;
    uintptr_t highest = 0;
  };

  std::map<pid_t, Thread> threads_;
  bool is_complete_ = true;
};

bool slept(const std::map<pid_t, Sleep>& sleeps, pid_t tid) {
  const auto found = sleeps.find(tid);
  return found != sleeps.end() && found->second.asleep;
}

// A wait, with everything that the rules need to tell whether it can end.
struct Case {
  const Look& look;
  const Wait& wait;
  const std::map<pid_t, Sleep>& sleeps;  // of all threads in runtimes
  Spins& spins;

  // The thread did not wake up between the two looks.
  bool asleep() const { return slept(wait.tid); }
  bool slept(pid_t tid) const { return cli::slept(sleeps, tid); }
  // The thread waits in a call for workers of OpenBLAS's pool. They may be at work.
  bool is_in_pool_call() const {
    return is(Kind::kOpenBlas) && own_threads() && !wait.is_worker && in("exec_blas") &&
           (yields() || locks() || innermost("exec_blas") || innermost("inner_"));
  }
  bool waits_for_pool() const { return is_in_pool_call() && !any_worker_awake(); }
  bool joins_workers_at_exit() const {
    return wait.in_exit && is(Kind::kOpenBlas) && asleep() && in("blas_thread_shutdown");
  }
  // The child of a fork without handlers does not have them.
  bool joins_lost_workers_at_exit() const {
    return forked() && joins_workers_at_exit() && workers_of(wait.runtime->object) == 0;
  }
  // Some workers of the pool were never made, because pthread_create failed. OpenBLAS prints that
  // and raises SIGINT. If the program handles SIGINT, OpenBLAS treats the pool as complete.
  bool workers_were_refused() const {
    const std::optional<int>& wanted = wait.runtime->pool_workers;
    const int there = workers_of(wait.runtime->object);
    if (!is_in_pool_call() || !wanted || there >= *wanted) return false;
    if (!forked()) {
      // A shutdown also ends workers, but it marks the pool as not made.
      if (!wait.runtime->pool_made.value_or(there > 0)) return false;
    } else if (there == 0 && !find_thread_limit(look.process)) {
      // The child of a fork without handlers has no workers either. Only a limit tells the two
      // apart.
      return false;
    }
    return !any_worker_at_work();
  }
  // Up to OpenBLAS 0.3.26 the existing workers may spin and wait for the missing ones.
  bool any_worker_at_work() const {
    return std::any_of(look.stacks.begin(), look.stacks.end(), [this](const ThreadStack& stack) {
      if (stack.tid == look.process.pid()) return false;
      if (stack.frames.empty()) return true;  // it may be a worker
      if (!is_worker_of(*wait.runtime, stack)) return false;
      const std::optional<Wait> worker = find_wait(look, stack);
      return !slept(stack.tid) && !(worker && spins.of(look, *worker));
    });
  }
  bool any_worker_awake() const {
    return std::any_of(look.stacks.begin(), look.stacks.end(), [this](const ThreadStack& stack) {
      return stack.tid != look.process.pid() && is_worker_of(*wait.runtime, stack) &&
             !slept(stack.tid);
    });
  }

  bool forked() const { return look.process.status().forked; }
  bool in(const char* function) const {
    return std::any_of(wait.functions.begin(), wait.functions.end(),
                       [&](const std::string& f) { return starts_with(f, function); });
  }
  bool innermost(const char* function) const {
    return !wait.functions.empty() && starts_with(wait.functions.front(), function);
  }
  bool yields() const { return contains(wait.system_call, "sched_yield"); }
  bool locks() const { return wait.in_c_library && asleep(); }
  // No other thread, apart from workers, is inside the same library.
  bool alone() const {
    for (const ThreadStack& stack : look.stacks) {
      if (stack.tid == wait.tid) continue;
      if (started_in(stack) == nullptr) continue;
      if (stack.tid != look.process.pid() && is_worker_of(*wait.runtime, stack)) continue;
      if (is_inside(stack)) return false;
    }
    return true;
  }
  bool is_inside(const ThreadStack& stack) const {
    return std::any_of(stack.frames.begin(), stack.frames.end(), [this](const Frame& frame) {
      return frame.object == wait.runtime->object && has_function(*wait.runtime, frame.function);
    });
  }
  // Whether another thread neither waits for a thread nor spins in the runtime.
  bool any_at_work() const {
    return std::any_of(look.stacks.begin(), look.stacks.end(), [this](const ThreadStack& stack) {
      if (stack.tid == wait.tid || (slept(stack.tid) && waits_for_thread(stack))) return false;
      const std::optional<Wait> its_wait = find_wait(look, stack);
      return !(its_wait && its_wait->runtime == wait.runtime && spins.of(look, *its_wait));
    });
  }
  bool waits_for_lock() const {
    return in("GOMP_critical") || in("GOMP_atomic") || in("omp_set_lock") ||
           in("omp_set_nest_lock");
  }
  // The workers of an OpenMP runtime, or of a BLAS on its own threads.
  int workers_of(const Object* object) const {
    for (const ThreadRuntime& r : look.runtimes) {
      if (r.object == object) return r.workers.value_or(0);
    }
    return 0;
  }
  const Object* openmp() const {
    if (wait.runtime->is_openmp()) return wait.runtime->object;
    return wait.runtime->openmp;
  }
  bool is(Kind kind) const { return wait.runtime->kind == kind; }
  bool own_threads() const { return wait.runtime->threading == Threading::kOwn; }
};

bool is_llvm_or_intel(const Wait& wait) {
  return wait.runtime->kind == Kind::kLlvmOpenMp || wait.runtime->kind == Kind::kIntelOpenMp;
}

struct Rule {
  const char* code;
  bool (*holds)(const Case& c);
  const char* waits_for;
  // Who may end the wait, beside the threads that `holds` looks at. Calls in flight never end that
  // for a shutdown, but a core does not tell whether they are in flight.
  enum { kNobody, kCallsInCore, kAnyThread } ended_by = kNobody;
};

// describe() adds the numbers to these.
constexpr const char* kLostTeam = "team mates that exist only in its parent";
constexpr const char* kRefused = "workers of OpenBLAS that could not be made";
// registrations.h of the library says why.
constexpr const char* kOwnLock =
    "a lock that this fork holds itself: if KMP_INIT_AT_FORK is TRUE, this runtime registers its "
    "handlers again in a child";
// A worker that ends its part of a product writes over the request to end (blas_server.c).
constexpr const char* kUnended =
    "the end of a worker, which has missed the request to end, since the process began to exit "
    "while a thread was inside a call. That is no fork problem";

// The first rule that holds gives the verdict. The function names are those of OpenBLAS 0.3.13 to
// 0.3.34, GCC 4.9 to 15 and BLIS 0.9.
constexpr Rule kRules[] = {
    // In any process.
    {"openblas-exit",
     [](const Case& c) {
       return c.joins_workers_at_exit() && !c.any_worker_awake() && !c.joins_lost_workers_at_exit();
     },
     kUnended, Rule::kCallsInCore},
    // In the parent.
    {"openblas-shutdown",
     [](const Case& c) {
       return c.is(Kind::kOpenBlas) && c.asleep() && c.in("blas_thread_shutdown") &&
              !c.wait.in_exit;
     },
     "the end of the workers of its thread pool, which it shuts down before every fork, while "
     "another thread is inside a call",
     Rule::kCallsInCore},
    // In the parent, in a child, or without any fork.
    {"openblas-no-threads", [](const Case& c) { return c.workers_were_refused(); }, kRefused},
    {"openblas-pool-gone", [](const Case& c) { return !c.forked() && c.waits_for_pool(); },
     "workers of the thread pool that a fork in another thread has ended under this call"},

    // In a child.
    {"gnu-openmp-lock",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kGnuOpenMp) && !c.wait.is_worker && c.waits_for_lock() &&
              c.workers_of(c.wait.runtime->object) == 0;
     },
     // A thread that holds one runs code of the program.
     "a critical section or lock whose holder exists only in its parent", Rule::kAnyThread},
    // Inside a region, BLIS and OpenBLAS have barriers of their own. OpenBLAS yields in them up to
    // 0.3.26, and spins from 0.3.27 on (common.h, YIELDING).
    {"gnu-openmp-team",
     [](const Case& c) {
       return c.forked() && !c.wait.is_worker && c.openmp() != nullptr &&
              c.openmp()->is(is_gnu_openmp) && c.workers_of(c.openmp()) == 0 &&
              ((c.is(Kind::kGnuOpenMp) && !c.waits_for_lock()) ||
               (c.in("GOMP_parallel") && (c.yields() || c.locks() || !c.wait.in_c_library)));
     },
     kLostTeam},
    {"llvm-openmp-handlers",
     [](const Case& c) {
       return c.forked() && c.wait.in_fork && is_llvm_or_intel(c.wait) && c.alone();
     },
     kOwnLock},
    {"llvm-openmp-team",
     [](const Case& c) {
       return c.forked() && !c.wait.is_worker && is_llvm_or_intel(c.wait) &&
              c.workers_of(c.wait.runtime->object) == 0;
     },
     kLostTeam},
    {"openblas-memory-lock",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kOpenBlas) && c.in("blas_memory_") && c.alone();
     },
     "the lock of its memory allocator, whose holder exists only in its parent"},
    {"openblas-queue-lock",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kOpenBlas) && c.own_threads() && !c.wait.is_worker &&
              (c.yields() || c.locks()) && c.innermost("exec_blas_async") &&
              !c.innermost("exec_blas_async_wait") && c.alone();
     },
     "the lock of its work queue, whose holder exists only in its parent"},
    {"openblas-in-use",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kOpenBlas) && !c.own_threads() && c.innermost("exec_blas") &&
              c.alone();
     },
     "buffers that are marked as in use by a thread that exists only in its parent (it spins)"},
    {"openblas-workers",
     [](const Case& c) {
       return c.forked() && (c.waits_for_pool() || c.joins_lost_workers_at_exit());
     },
     "workers of the thread pool that exist only in its parent"},
    {"openblas-cpu-available",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kOpenBlas) && c.locks() && c.alone() &&
              contains(c.wait.system_call, "cond_");
     },
     "processors that calls in flight have taken, in threads that exist only in its parent"},
    {"openblas-level3-lock",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kOpenBlas) && c.locks() && c.alone() && !c.wait.is_worker;
     },
     "the lock of its level-3 driver, whose holder exists only in its parent"},
    {"blis-lock",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kBlis) && c.locks() && c.alone() && !c.wait.is_worker;
     },
     "a lock of its memory pools, whose holder exists only in its parent"},
    {"mkl-threads",
     [](const Case& c) {
       return c.forked() && c.is(Kind::kMkl) && (c.locks() || c.yields()) && c.alone() &&
              !c.wait.is_worker;
     },
     "a lock or threads that exist only in its parent", Rule::kAnyThread},
};

std::string place_of(const Wait& wait) {
  // A BLAS inside a parallel region waits for the team of that region.
  const bool in_region = !wait.runtime->is_openmp() && wait.runtime->openmp != nullptr &&
                         std::count(wait.functions.begin(), wait.functions.end(), "GOMP_parallel");
  if (in_region) return fmt::format("GOMP_parallel ({})", wait.runtime->openmp->name());
  const std::string object = wait.runtime->linked_in
                                 ? fmt::format("{} in {}", wait.runtime->name(), wait.object)
                                 : wait.object;
  return wait.function.empty() ? object : fmt::format("{} ({})", wait.function, object);
}

std::string where(const Wait& wait) {
  std::string result = "waits in " + place_of(wait);
  if (wait.entry.empty() || wait.entry == wait.function) return result;
  if (result.find(wait.entry_object) == std::string::npos) {
    return result + fmt::format(", called by {} of {},", wait.entry, wait.entry_object);
  }
  return result + fmt::format(", called by {},", wait.entry);
}

// Whether all threads have stopped, so that each stack was read.
bool is_whole(const Look& look) {
  return std::none_of(look.stacks.begin(), look.stacks.end(),
                      [](const ThreadStack& stack) { return stack.frames.empty(); });
}

// Looks at the parents of children, at each one once.
class Parents {
 public:
  /// A process that was looked at anyway. A look that is not whole is taken again if it is asked
  /// for: a thread gets no processor for some time where many spin.
  void add(const Look& look) {
    if (is_whole(look)) looks_[look.process.pid()] = &look;
  }

  /// Null if the parent has ended or may not be read, or the child is in a core.
  const Look* of(const Look& child) {
    if (child.process.core() != nullptr) return nullptr;
    const auto [entry, is_new] = looks_.try_emplace(child.process.status().parent, nullptr);
    if (!is_new) return entry->second;
    try {
      own_.push_back(std::make_unique<Look>(entry->first));
      entry->second = own_.back().get();
    } catch (const Error&) {
    }
    return entry->second;
  }

 private:
  std::map<pid_t, const Look*> looks_;
  std::vector<std::unique_ptr<Look>> own_;
};

// How many workers of that runtime the parent has: the team mates that the child waits for. None if
// one of its threads can't be read.
std::optional<int> count_in_parent(const Look* parent, const Object* object) {
  if (parent == nullptr || !is_whole(*parent)) return std::nullopt;
  for (const ThreadRuntime& r : parent->runtimes) {
    if (object != nullptr && r.object->path() == object->path() &&
        r.object->base() == object->base()) {
      return r.workers.value_or(0);
    }
  }
  return 0;
}

std::string mates_in_parent(int mates) {
  if (mates == 0) return kLostTeam;
  return mates == 1 ? "1 team mate that exists only in its parent"
                    : fmt::format("{} {}", mates, kLostTeam);
}

std::string describe_refused(const Look& look, const Wait& wait) {
  const int wanted = wait.runtime->pool_workers.value_or(0);
  const int there = wait.runtime->workers.value_or(0);
  const std::string exist =
      there == 0 ? "none exists" : fmt::format("only {} exist{}", there, there == 1 ? "s" : "");
  const std::optional<ThreadLimit> limit = find_thread_limit(look.process);
  return fmt::format("{} worker{} of OpenBLAS, of which {}, since threads could not be made: {}",
                     wanted, wanted == 1 ? "" : "s", exist,
                     limit ? limit->what : "see standard error for \"pthread_create failed\"");
}

// "This is a forked child of 4242. "
std::string origin_of(const Process& process) {
  if (!process.status().forked) return "";
  const pid_t parent = forked_by(process.status());
  return parent > 0 ? fmt::format("This is a forked child of {}. ", parent)
                    : "This is a forked child; its parent has ended. ";
}

// The thread, as the subject of a sentence.
std::string subject(const Look& look, pid_t tid) {
  return tid == look.process.pid() ? "It" : fmt::format("Its thread {}", tid);
}

std::string describe(const Look& look, const Wait& wait, const Rule& rule, Parents* parents) {
  const pid_t pid = look.process.pid();
  std::string waits_for = rule.waits_for;
  if (waits_for == kLostTeam) {
    const Object* openmp = wait.runtime->is_openmp() ? wait.runtime->object : wait.runtime->openmp;
    waits_for = mates_in_parent(count_in_parent(parents->of(look), openmp).value_or(0));
  }
  if (waits_for == kRefused) waits_for = describe_refused(look, wait);
  std::string who = subject(look, wait.tid);
  if (wait.in_fork) who += wait.tid == pid ? " hangs in its own fork():" : " hangs in fork():";
  std::string text = origin_of(look.process);
  if (wait.in_fork) {
    return text + fmt::format("{} a handler of {} {} for {}.", who, wait.called->name(),
                              where(wait), waits_for);
  }
  text += fmt::format("{} {} for {}.", who, where(wait), waits_for);
  if (!wait.runtime->fork_care_off.empty()) {
    text += fmt::format(
        " The fork handlers of this runtime are off: KMP_INIT_AT_FORK is {}. scikit-learn sets it "
        "to FALSE unless it is set.",
        wait.runtime->fork_care_off);
  }
  return text;
}

// The command line to type: that of the process that forked. For a core it is assumed to be that of
// the child.
std::string command_to_run(const Look& look) {
  ProcessStatus status = look.process.status();
  std::vector<std::string> command = look.process.arguments();
  while (look.process.core() == nullptr && forked_by(status) > 0) {
    const std::vector<std::string> of_parent = read_arguments(status.parent);
    if (!of_parent.empty()) command = of_parent;
    if (!read_status(status.parent, &status)) break;
  }
  return shell_line(command);
}

// forksafe leaves LLVM's and Intel's OpenMP alone, because they have fork handlers of their own.
std::string cure_of_llvm_or_intel(const Look& look, const ThreadRuntime& runtime) {
  if (runtime.fork_care_off.empty()) {
    return "forksafe has none: this runtime has fork handlers of its own, but a child that was "
           "made "
           "by _Fork() or a raw clone() runs no handlers";
  }
  const std::optional<std::string> setting = fork_care_setting(look.process);
  if (!setting) return "the program itself sets KMP_INIT_AT_FORK: set it to TRUE there";
  return fmt::format(
      "KMP_INIT_AT_FORK=TRUE in the environment, which forksafe COMMAND sets:  {}forksafe {}",
      *setting, command_to_run(look));
}

std::string cure_for_refused(const Look& look) {
  const std::optional<ThreadLimit> limit = find_thread_limit(look.process);
  const bool in_children = look.guard.enabled && look.process.status().forked;
  return fmt::format("{}, or use fewer threads:  {} {}",
                     limit ? limit->cure : "raise the limit of threads (ulimit -u, pids.max)",
                     in_children ? "forksafe --child-threads 1" : "OPENBLAS_NUM_THREADS=1",
                     command_to_run(look));
}

// Whether the program itself asked for this lock. (The unnamed critical section is libgomp's.)
bool is_programs_lock(const Wait& wait) {
  if (wait.called != wait.runtime) return false;
  for (const char* name : {"omp_set_lock", "omp_set_nest_lock", "GOMP_critical_name_start"}) {
    if (starts_with(wait.function, name)) return true;
  }
  return false;
}

// For a process that hangs although the library is loaded and switched on.
std::string cure_under_forksafe(const ThreadRuntime& runtime) {
  if (runtime.kind == Kind::kOpenBlas && !runtime.guarded) {
    return runtime.threads
               ? "forksafe leaves this copy of OpenBLAS as it is: it was loaded before forksafe, "
                 "with RTLD_DEEPBIND, or by dlmopen"
               : "forksafe leaves this copy of OpenBLAS as it is, since no symbol names its "
                 "internals: use a build that has them";
  }
  if (runtime.one_thread && runtime.threads.value_or(1) > 1) {
    return "forksafe gave this child one thread, because calls were in flight for longer than "
           "FORKSAFE_WAIT_MS, and the program has raised the number: leave it, or raise "
           "FORKSAFE_WAIT_MS";
  }
  if (!runtime.idle_guarded.safe || !runtime.in_flight_guarded.safe) {
    return fmt::format(
        "forksafe has none for a defect of {} {} (an LU decomposition after a fork "
        "hangs at times): use another version",
        runtime.name(), runtime.version);
  }
  return "it runs under forksafe already, which does not help a child that was made by _Fork() or "
         "a raw clone(), that was forked inside a parallel region or by a signal handler inside a "
         "call, or that can't make threads (the runtime says so on standard error). In all other "
         "cases this is a defect of forksafe: please report it with this output";
}

std::string cure_for(const Look& look, const Wait& wait, const char* waits_for) {
  if (is_llvm_or_intel(wait) && waits_for != kOwnLock) {
    return cure_of_llvm_or_intel(look, *wait.runtime);
  }
  if (waits_for == kRefused) return cure_for_refused(look);
  if (waits_for == kUnended) {
    return "forksafe has none for this defect of OpenBLAS: let the threads that compute end before "
           "the process exits, or exit by _exit (Python: os._exit)";
  }
  if (wait.runtime->left_alone) {
    return fmt::format(
        "forksafe has none for {} that is linked into {}: link it to {} instead, and run it under "
        "forksafe",
        wait.runtime->name(), wait.runtime->object->name(), shared_library(*wait.runtime));
  }
  if (is_programs_lock(wait)) {
    return "forksafe has none for a lock of the program's own, which stays held in the child, as "
           "POSIX says: fork while no other thread holds it";
  }
  if (wait.runtime->threading == Threading::kTbb) {
    return "forksafe has none for TBB: choose another layer with MKL_THREADING_LAYER=INTEL or GNU, "
           "and run that under forksafe";
  }
  if (look.guard.enabled) return cure_under_forksafe(*wait.runtime);
  if (look.guard.loaded) {
    return "forksafe is loaded but switched off: run it without FORKSAFE=0";
  }
  const char* who = look.process.status().forked ? "the parent" : "it";
  return fmt::format("run {} under forksafe:  forksafe {}", who, command_to_run(look));
}

// The same for a wait in that runtime of which no more is known.
std::string cure_for(const Look& look, const ThreadRuntime& runtime) {
  Wait wait;
  wait.runtime = wait.called = &runtime;
  return cure_for(look, wait, kLostTeam);
}

// ---- waits in objects that no rule knows

std::string place_of(const Object& object, const std::string& function) {
  return function.empty() ? object.name() : fmt::format("{} ({})", function, object.name());
}

// The long names of templates tell less than their beginning.
std::string without_parameters(const std::string& function) {
  constexpr size_t kLong = 60;
  const size_t end = function.find('<', 1);
  return function.size() > kLong && end != std::string::npos ? function.substr(0, end) : function;
}

std::string place_of(const LostWait& wait) {
  return place_of(*wait.object, without_parameters(wait.function));
}

// "2 threads of that library, which exist only in its parent."
std::string threads_in_parent(const Look& look, const LostWait& wait) {
  const char* whose = wait.object == look.objects.program() ? "the program" : "that library";
  if (wait.in_parent == 1) {
    return fmt::format("a thread of {}, which exists only in its parent.", whose);
  }
  return fmt::format("{} threads of {}, which exist only in its parent.", wait.in_parent, whose);
}

std::string describe(const Look& look, const LostWait& wait) {
  std::string text = origin_of(look.process);
  text += subject(look, wait.tid);
  if (wait.is_hidden)
    text += " hangs in fork(), in a handler that waits for ";
  else if (wait.in_fork)
    text += fmt::format(" hangs in fork(): the handler {} waits for ", place_of(wait));
  else
    text += fmt::format(" waits in {} for ", place_of(wait));
  if (!look.process.status().forked) {
    return text + "a lock or a thread, and no thread of this process is left that could end that.";
  }
  if (wait.in_fork || wait.in_parent == 0) {
    return text + "a lock or a thread that exists only in its parent.";
  }
  if (wait.is_python) return text + "a lock of Python, whose holder exists only in its parent.";
  return text + threads_in_parent(look, wait);
}

// " of libx.so (before_fork)", if the stack tells.
std::string of_whom(const LostWait& wait) {
  if (wait.is_hidden) return "";
  return fmt::format(" of {}{}", wait.object->name(),
                     wait.function.empty() ? "" : fmt::format(" ({})", wait.function));
}

std::string cure_for(const Look& look, const LostWait& wait) {
  for (const ThreadRuntime& runtime : look.runtimes) {
    if (runtime.object == wait.object && !runtime.linked_in) return cure_for(look, runtime);
  }
  if (wait.is_hidden || wait.is_python) {
    return "forksafe has none for locks of the program: fork while no other thread holds one, or "
           "start workers by spawn or forkserver";
  }
  const std::string name = wait.object->name();
  if (wait.in_fork) {
    return fmt::format(
        "forksafe has none for the handlers of {}: fork while no other thread uses "
        "it, or start workers by spawn or forkserver",
        name);
  }
  return fmt::format(
      "forksafe has none for {}: use it in the children only, or start workers by "
      "spawn or forkserver",
      name);
}

}  // namespace

Look::Look(Process&& its_process, Objects&& its_objects, std::vector<ThreadStack>&& its_stacks)
    : process(std::move(its_process)),
      objects(std::move(its_objects)),
      stacks(std::move(its_stacks)),
      runtimes(find_thread_runtimes(process, objects, stacks)),
      others(find_other_threads(process, objects, stacks, runtimes)),
      guard(find_guard(process, objects)) {}

Look::Look(Process&& its_process)
    : process(std::move(its_process)),
      objects(process),
      stacks(read_settled_stacks(process, objects)),
      runtimes(find_thread_runtimes(process, objects, stacks)),
      others(find_other_threads(process, objects, stacks, runtimes)),
      guard(find_guard(process, objects)) {}

std::vector<Wait> find_waits(const Look& look) {
  std::vector<Wait> result;
  for (const ThreadStack& stack : look.stacks) {
    if (std::optional<Wait> wait = find_wait(look, stack)) result.push_back(*wait);
  }
  return result;
}

namespace {

// A look at a process, or why there is none.
struct Looked {
  std::unique_ptr<Look> look;
  std::string error;
  std::optional<Obstacle> obstacle;

  void fail(const std::exception_ptr& why) {
    try {
      std::rethrow_exception(why);
    } catch (const NotPermitted& e) {
      error = e.what();
      obstacle = e.obstacle();
    } catch (const Error& e) {
      error = e.what();
    }
  }
};

// The first look at a process, and how its threads have slept since.
struct FirstLook : Looked {
  explicit FirstLook(Looked looked) : Looked(std::move(looked)) {}

  std::vector<Wait> waits;        // of threads that are not workers
  std::map<pid_t, Sleep> sleeps;  // of all threads that one of the rules asks for
  bool any_waits_for_thread = false;
  bool may_spin_alone = false;

  bool may_be_stuck() const { return !waits.empty() || any_waits_for_thread || may_spin_alone; }
};

std::vector<Looked> look_at(const std::vector<pid_t>& pids) {
  struct Subject {
    explicit Subject(pid_t pid) : process(pid), objects(process) {}
    Process process;
    Objects objects;
  };
  std::vector<Looked> result(pids.size());
  std::vector<std::unique_ptr<Subject>> subjects(pids.size());
  std::vector<ProcessStacks> stacks;
  for (size_t i = 0; i < pids.size(); ++i) {
    try {
      subjects[i] = std::make_unique<Subject>(pids[i]);
      stacks.push_back({&subjects[i]->process, &subjects[i]->objects, {}, nullptr});
    } catch (const Error&) {
      result[i].fail(std::current_exception());
    }
  }
  read_stacks(&stacks);
  auto next = stacks.begin();
  for (size_t i = 0; i < pids.size(); ++i) {
    if (subjects[i] == nullptr) continue;
    if (next->error != nullptr) {
      result[i].fail(next->error);
    } else {
      result[i].look =
          std::make_unique<Look>(std::move(subjects[i]->process), std::move(subjects[i]->objects),
                                 std::move(next->stacks));
    }
    ++next;
  }
  return result;
}

FirstLook first_look(pid_t pid, Looked looked) {
  FirstLook first(std::move(looked));
  if (first.obstacle) {
    for (const pid_t tid : thread_ids(pid)) first.sleeps[tid] = {};
  }
  if (first.look == nullptr) return first;
  for (const Wait& wait : find_waits(*first.look)) {
    // It is normal for a worker to wait for work.
    if (!wait.is_worker) first.waits.push_back(wait);
    first.sleeps[wait.tid] = {};
  }
  const Process& process = first.look->process;
  const std::vector<ThreadStack>& stacks = first.look->stacks;
  const bool may_be_lost =
      process.status().forked || std::any_of(stacks.begin(), stacks.end(), is_in_fork);
  for (const ThreadStack& stack : stacks) {
    // It may be any worker.
    if (tells_nothing(stack)) first.sleeps[stack.tid] = {};
    if (may_be_lost && waits_for_thread_or_timeout(stack)) {
      first.sleeps[stack.tid] = {};
      first.any_waits_for_thread = true;
    }
    const auto sleep = first.sleeps.find(stack.tid);
    if (sleep != first.sleeps.end()) sleep->second.asleep = stack.system_call.has_value();
  }
  first.may_spin_alone =
      find_lone_thread(process, first.look->objects, stacks, first.look->runtimes).has_value();
  return first;
}

Diagnosis new_diagnosis(pid_t pid) {
  Diagnosis result;
  result.pid = pid;
  result.code = "none";
  result.what = "This is not a fork problem that forksafe knows.";
  return result;
}

// Whether one look is enough: the thread waits for another one in a system call, and either those
// that may end the wait are all known to the rule, or all threads wait like that.
bool is_proven_by_core(const Look& look, const Wait& wait, const Rule& rule) {
  return std::all_of(look.stacks.begin(), look.stacks.end(), [&](const ThreadStack& stack) {
    const bool counts = stack.tid == wait.tid || rule.ended_by != Rule::kNobody;
    return !counts || waits_for_thread(stack);
  });
}

// `where`: "was in ..."
void leave_open(const Look& look, pid_t tid, const std::string& where, Diagnosis* result) {
  if (result->unknown) return;
  result->unknown = true;
  result->code = "unknown";
  result->what = fmt::format("{}{} {}.", origin_of(look.process), subject(look, tid), where);
}

// False if that needs samples which `spins` does not have yet.
bool apply_rules(const FirstLook& first, Spins* spins, Parents* parents, Diagnosis* result) {
  const Look& look = *result->look;
  // Such a thread may be the worker that the others wait for, unless it sleeps. If it runs code of
  // no file, it is none, but it may end the wait.
  bool beside_code = false;
  for (const ThreadStack& stack : look.stacks) {
    if (!tells_nothing(stack) || slept(first.sleeps, stack.tid)) continue;
    const bool is_code = !stack.frames.empty() && stack.frames.front().object == nullptr;
    if (!is_code || !look.process.status().forked) return true;
    beside_code = true;
  }
  const std::vector<Wait> waits = find_waits(look);
  for (const Rule& rule : kRules) {
    for (const Wait& wait : waits) {
      const bool stayed =
          std::any_of(first.waits.begin(), first.waits.end(), [&](const Wait& earlier) {
            return earlier.tid == wait.tid && earlier.stack == wait.stack &&
                   earlier.runtime->object->base() == wait.runtime->object->base();
          });
      if (!stayed) continue;
      const Case c = {look, wait, first.sleeps, *spins};
      if (!rule.holds(c)) continue;
      if (look.process.core() != nullptr && !is_proven_by_core(look, wait, rule)) {
        std::string place = "was" + where(wait).substr(strlen("waits"));
        if (place.back() != ',') place += ',';
        leave_open(look, wait.tid,
                   place +
                       " where processes get stuck by a fork. But one look does not tell "
                       "whether it would have gone on",
                   result);
        continue;
      }
      if (!c.asleep() && !spins->of(look, wait)) continue;
      const bool may_end = beside_code || (rule.ended_by == Rule::kAnyThread && c.any_at_work());
      if (!spins->take_complete()) return false;
      if (may_end && result->unknown) continue;
      if (may_end) {
        leave_open(look, wait.tid,
                   fmt::format("{} for {}, or for another thread of this process, which may let it "
                               "go on",
                               where(wait), rule.waits_for),
                   result);
      } else {
        result->stuck = true;
        result->unknown = false;
        result->code = rule.code;
        result->what = describe(look, wait, rule, parents);
      }
      result->cure = cure_for(look, wait, rule.waits_for);
      result->place = place_of(wait);
      result->library = wait.runtime->object->path();
      result->tid = wait.tid;
      if (result->stuck) return true;
    }
  }
  return spins->take_complete();
}

StacksOfParent stacks_of_parent(const Look& look, Parents* parents) {
  return [&look, parents] {
    const Look* parent = parents->of(look);
    return parent != nullptr ? &parent->stacks : nullptr;
  };
}

// How many threads that the child waits for exist only in its parent. None if the parent can't be
// read, 0 if it lacks them too.
std::optional<int> count_lost(const Look& look, const LoneSpin& spin, Parents* parents) {
  if (spin.runtime != nullptr) return count_in_parent(parents->of(look), spin.runtime->object);
  return count_lost_threads(look.process, look.stacks, *spin.object,
                            stacks_of_parent(look, parents));
}

void describe_spin(const LoneSpin& spin, Parents* parents, Diagnosis* result) {
  const Look& look = *result->look;
  const int lost = count_lost(look, spin, parents).value_or(0);
  const std::string function = without_parameters(spin.function);
  result->stuck = true;
  result->place = place_of(*spin.object, function);
  result->library = spin.object->path();
  result->tid = spin.tid;
  result->what = fmt::format("{}{} spins in {}", origin_of(look.process), subject(look, spin.tid),
                             result->place);
  if (spin.runtime != nullptr) {
    result->code = "openmp-spin";
    result->what +=
        fmt::format(", alone below {}. It likely waits for {}.",
                    place_of(*spin.runtime->object, spin.region), mates_in_parent(lost));
    result->cure = cure_for(look, *spin.runtime);
  } else {
    LostWait wait;
    wait.object = spin.object;
    wait.in_parent = lost;
    result->code = "lost-threads";
    result->what += fmt::format(". It likely waits for {}", threads_in_parent(look, wait));
    result->cure = cure_for(look, wait);
  }
}

// For threads that spin in code of no known runtime.
void find_lone_spins(const std::vector<Diagnosis*>& results, Parents* parents) {
  std::vector<Diagnosis*> doubtful;
  std::vector<LoneSuspect> suspects;
  for (Diagnosis* result : results) {
    const Look& look = *result->look;
    const auto spin = find_lone_thread(look.process, look.objects, look.stacks, look.runtimes);
    if (!spin || count_lost(look, *spin, parents) == 0) continue;
    doubtful.push_back(result);
    suspects.push_back({&look.process, &look.objects, &look.runtimes, *spin});
  }
  const std::vector<bool> spins = spin_alone(suspects);
  for (size_t i = 0; i < suspects.size(); ++i) {
    if (spins[i]) describe_spin(suspects[i].spin, parents, doubtful[i]);
  }
}

void set_place(const LostWait& wait, Diagnosis* result) {
  result->cure = cure_for(*result->look, wait);
  result->place = place_of(wait);
  result->library = wait.object->path();
  result->tid = wait.tid;
}

// For a wait with a timeout that nobody can end. False if there is none.
bool leave_timed_wait_open(const Look& look, Parents* parents, Diagnosis* result) {
  const auto wait =
      find_timed_wait(look.process, look.objects, look.stacks, stacks_of_parent(look, parents));
  if (!wait) return false;
  leave_open(look, wait->tid,
             fmt::format("waits with a timeout in {} for {} Only they could end the wait. forksafe "
                         "can't tell whether it goes on after the timeout or waits again",
                         place_of(*wait), threads_in_parent(look, *wait)),
             result);
  set_place(*wait, result);
  return true;
}

// For a child that can't be judged as it is.
void leave_unread_open(Diagnosis* result) {
  const Look& look = *result->look;
  const pid_t pid = look.process.pid();
  if (!look.process.status().forked) return;
  if (look.process.status().state == 'T') {
    leave_open(look, pid,
               fmt::format("is stopped by a signal, so forksafe can't tell whether it waits. Try "
                           "again after:  kill -CONT {}",
                           pid),
               result);
  } else if (!look.objects.unread().empty()) {
    leave_open(look, pid,
               fmt::format("has loaded {}, whose file was removed or replaced since. Only root can "
                           "read it, so try as root",
                           look.objects.unread().front()),
               result);
  }
}

// For waits in objects that no rule knows.
void find_lost_threads(const FirstLook& first, Parents* parents, Diagnosis* result) {
  const Look& look = *result->look;
  std::vector<pid_t> asleep;
  for (const auto& [tid, sleep] : first.sleeps) {
    if (sleep.asleep) asleep.push_back(tid);
  }
  std::optional<LostWait> wait = find_lost_wait(look.process, look.objects, look.stacks, asleep,
                                                stacks_of_parent(look, parents));
  if (!wait && first.look != nullptr && find_gil_wait(first.look->process, first.look->stacks)) {
    wait = find_gil_wait(look.process, look.stacks);
  }
  if (!wait) {
    // One of the two looks may have come when the thread was awake. Of a core there is only one.
    if (leave_timed_wait_open(look, parents, result)) return;
    if (first.look != nullptr && leave_timed_wait_open(*first.look, parents, result)) return;
    // It may be woken later, but the user should know where it is.
    if (const auto handler = find_handler_wait(look.stacks, asleep)) {
      result->what += fmt::format(" {} is inside fork(), in a handler{}.",
                                  subject(look, handler->tid), of_whom(*handler));
    }
    return;
  }
  if (look.process.core() != nullptr) {
    leave_open(look, wait->tid,
               fmt::format("waits in {} for a thread, and all of its threads wait. But a core does "
                           "not tell whether a signal would have let it go on",
                           place_of(*wait)),
               result);
    return;
  }
  if (wait->others_run || wait->handles_signals) {
    const char* who = wait->others_run ? "another thread of this process does not wait, and"
                                       : "this process handles a signal, whose handler";
    leave_open(look, wait->tid,
               fmt::format("waits in {} for {} But {} may let it go on", place_of(*wait),
                           threads_in_parent(look, *wait), who),
               result);
    set_place(*wait, result);
    return;
  }
  result->stuck = true;
  result->code = wait->is_python ? "python-lock" : "lost-threads";
  result->what = describe(look, *wait);
  set_place(*wait, result);
}

void add_evidence(const FirstLook& first, Diagnosis* result) {
  std::set<pid_t> asleep;
  for (const auto& [tid, sleep] : first.sleeps) {
    if (sleep.asleep) asleep.insert(tid);
  }
  result->obstacle = first.obstacle;
  try {
    result->evidence = find_evidence(result->pid, asleep);
    result->unknown = true;
    result->code = "unknown";
    result->what = describe(*result->evidence);
  } catch (const Error&) {
    // It has ended.
  }
}

}  // namespace

Diagnosis diagnose_core(const std::string& path) {
  Looked looked;
  looked.look = std::make_unique<Look>(Process(std::make_shared<const Core>(path)));
  FirstLook first = first_look(0, std::move(looked));
  Diagnosis result = new_diagnosis(first.look->process.pid());
  result.look = std::move(first.look);
  Spins spins;
  Parents parents;
  apply_rules(first, &spins, &parents, &result);
  if (!result.stuck && !result.unknown) find_lost_threads(first, &parents, &result);
  return result;
}

std::vector<Diagnosis> diagnose_processes(const std::vector<pid_t>& pids) {
  std::vector<FirstLook> firsts;
  Parents parents;
  std::vector<pid_t> again;
  bool any_to_watch = false;
  for (Looked& looked : look_at(pids)) {
    const pid_t pid = pids[firsts.size()];
    firsts.push_back(first_look(pid, std::move(looked)));
    const FirstLook& first = firsts.back();
    if (first.look != nullptr) parents.add(*first.look);
    if (first.may_be_stuck()) again.push_back(pid);
    any_to_watch = any_to_watch || first.may_be_stuck() || first.obstacle;
  }
  const auto each_sleep = [&](auto step) {
    for (size_t i = 0; i < pids.size(); ++i) {
      if (!firsts[i].may_be_stuck() && !firsts[i].obstacle) continue;
      for (auto& [tid, sleep] : firsts[i].sleeps) step(&sleep, read_sleep(pids[i], tid));
    }
  };
  if (any_to_watch) {
    bool settled = false;
    for (int i = 0; i < kMostSettles && !settled; ++i) {
      sleep_after_look(kSettle);
      settled = true;
      each_sleep([&](Sleep* sleep, const Sleep& now) {
        if (now.asleep) sleep->asleep = false;  // it is back
        settled = settled && !sleep->asleep;
      });
    }
    each_sleep([](Sleep* sleep, const Sleep& now) { *sleep = now; });
    sleep_after_look(kStill);
    each_sleep([](Sleep* sleep, const Sleep& now) {
      sleep->asleep = sleep->asleep && now.asleep && sleep->switches == now.switches;
    });
  }

  std::vector<Looked> seconds = look_at(again);
  std::vector<Diagnosis> results(pids.size());
  auto second = seconds.begin();
  for (size_t i = 0; i < pids.size(); ++i) {
    Diagnosis& result = results[i];
    result = new_diagnosis(pids[i]);
    if (firsts[i].may_be_stuck()) {
      result.error = second->error;
      result.look = std::move(second->look);
      ++second;
    } else {
      result.error = firsts[i].error;
      result.look = std::move(firsts[i].look);
      if (firsts[i].obstacle) add_evidence(firsts[i], &result);
    }
  }
  std::vector<size_t> left;
  for (size_t i = 0; i < pids.size(); ++i) {
    if (firsts[i].may_be_stuck() && results[i].look != nullptr) left.push_back(i);
  }
  const std::vector<size_t> suspects = left;
  Spins spins;
  while (!left.empty()) {
    const auto has_verdict = [&](size_t i) {
      return apply_rules(firsts[i], &spins, &parents, &results[i]);
    };
    left.erase(std::remove_if(left.begin(), left.end(), has_verdict), left.end());
    spins.sample();
  }
  std::vector<Diagnosis*> may_spin_alone;
  for (const size_t i : suspects) {
    if (!results[i].stuck && !results[i].unknown && firsts[i].may_spin_alone)
      may_spin_alone.push_back(&results[i]);
  }
  find_lone_spins(may_spin_alone, &parents);
  for (const size_t i : suspects) {
    if (!results[i].stuck && !results[i].unknown) {
      find_lost_threads(firsts[i], &parents, &results[i]);
    }
  }
  for (Diagnosis& result : results) {
    if (result.look != nullptr && !result.stuck && !result.unknown) leave_unread_open(&result);
  }
  return results;
}

}  // namespace forksafe::cli
