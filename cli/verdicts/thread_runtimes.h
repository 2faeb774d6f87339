// SPDX-License-Identifier: Apache-2.0
// The BLAS and OpenMP runtimes among a process's objects, and what each does at a fork.
//
// To add one: a Kind, a line in each of the tables in thread_runtimes.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"
#include "process/stacks.h"

namespace forksafe::cli {

enum class Kind { kOpenBlas, kBlis, kMkl, kGnuOpenMp, kLlvmOpenMp, kIntelOpenMp };

/// What a BLAS computes with.
enum class Threading { kNone, kOwn, kOpenMp, kTbb };

/// What comes of a fork in one situation.
struct Fork {
  bool safe;
  std::string word;  ///< for a table: "safe", "hangs"
  std::string text;  ///< for a sentence: what happens
};

struct ThreadRuntime {
  const Object* object = nullptr;
  /// It is a part of a program, or of a library that has more in it: linked statically. Then only
  /// the names of functions tell what of the object is the runtime.
  bool linked_in = false;
  Kind kind = Kind::kOpenBlas;
  Threading threading = Threading::kOwn;
  /// The OpenMP runtime that it computes with; null where it needs none or none could be found.
  const Object* openmp = nullptr;
  std::string version;       ///< empty where the file does not say
  std::string architecture;  ///< the processor that OpenBLAS's kernels were chosen for, or empty

  std::optional<int> threads;  ///< how many threads a call may use
  std::string threads_from;    ///< where that number is from: memory, environment, default
  std::optional<int> workers;  ///< live threads that it has started; none for one on OpenMP
  /// OpenBLAS on its own threads: how many workers its pool is to have, and whether it takes them
  /// for made (blas_num_threads, blas_server_avail of driver/others). None where no symbol tells.
  std::optional<int> pool_workers;
  std::optional<bool> pool_made;

  std::string linked;                  ///< at start, preload, dlopen or static
  std::vector<std::string> needed_by;  ///< names of the objects that are linked to it

  // A fork by itself, and under forksafe: with no call in flight, and with some in other threads.
  Fork idle;
  Fork in_flight;
  Fork idle_guarded;
  Fork in_flight_guarded;

  /// LLVM's or Intel's OpenMP, and what computes with it, when the program has told that runtime
  /// not to care for fork: the value of KMP_INIT_AT_FORK. Empty for all others.
  std::string fork_care_off;

  bool guarded = false;     ///< forksafe cares for it in this process, now
  bool one_thread = false;  ///< this process is a child that forksafe could not make whole
  int degraded_forks = 0;   ///< how many forks had such a child

  const char* name() const;  ///< "OpenBLAS", "GNU OpenMP"
  bool is_openmp() const;    ///< an OpenMP runtime, not a BLAS
};

/// Whether libforksafe.so is loaded in a process, and at work.
struct Guard {
  bool loaded = false;
  bool enabled = false;  ///< not under FORKSAFE=0
};

Guard find_guard(const Process& process, const Objects& objects);

/// The runtimes, by address. `workers` are counted by `stacks`, where there are any.
std::vector<ThreadRuntime> find_thread_runtimes(const Process& process, const Objects& objects,
                                                const std::vector<ThreadStack>& stacks);

/// For a process whose runtimes have a `fork_care_off`: what to put in front of `forksafe COMMAND`,
/// which keeps a value of KMP_INIT_AT_FORK that it finds and sets TRUE where there is none:
/// "KMP_INIT_AT_FORK=TRUE ", or nothing. None where the program itself has replaced a good value.
std::optional<std::string> fork_care_setting(const Process& process);

/// Where the thread was started: the first object outside of the C library from the outer end of
/// its stack. Null for a stack that could not be read.
const Object* started_in(const ThreadStack& stack);

/// Whether a function of a runtime's object is a part of the runtime.
bool has_function(const ThreadRuntime& runtime, const std::string& function);

/// Whether the runtime has started this thread. Not asked of a process's main thread.
bool is_worker_of(const ThreadRuntime& runtime, const ThreadStack& stack);

/// Whether an object has GNU OpenMP in it, by itself or linked in: LLVM's and Intel's define its
/// functions too.
bool is_gnu_openmp(const Object& object);

}  // namespace forksafe::cli
