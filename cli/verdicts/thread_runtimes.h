// SPDX-License-Identifier: Apache-2.0
// Finds the BLAS and OpenMP runtimes among the objects of a process, and what each does at a fork.
//
// To add a runtime: add a Kind, and a line to each of the tables in thread_runtimes.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"
#include "process/stacks.h"

namespace forksafe::cli {

enum class Kind { kOpenBlas, kBlis, kMkl, kGnuOpenMp, kLlvmOpenMp, kIntelOpenMp };

/// Whose threads a BLAS computes with.
enum class Threading { kNone, kOwn, kOpenMp, kTbb };

/// What happens after a fork in one situation.
struct Fork {
  bool safe = false;
  std::string word;  ///< for a table: "safe", "hangs"
  std::string text;  ///< for a sentence: what happens
};

struct ThreadRuntime {
  const Object* object = nullptr;
  /// Whether the runtime is statically linked into a program or a larger library. Then only the
  /// names of functions tell which part of the object is the runtime.
  bool linked_in = false;
  NamedBy named_by = NamedBy::kDynamicSymbols;  ///< how it was recognised
  bool left_alone = false;  ///< linked in so that the library does not take care of it
  Kind kind = Kind::kOpenBlas;
  Threading threading = Threading::kOwn;
  /// The OpenMP runtime that it computes with. Null if it needs none, or if none was found.
  const Object* openmp = nullptr;
  std::string version;       ///< empty if the file does not tell
  std::string architecture;  ///< the processor that OpenBLAS's kernels were chosen for, or empty

  std::optional<int> threads;  ///< how many threads a call may use
  std::string threads_from;    ///< the source of that number: memory, environment, default
  std::optional<int> workers;  ///< its live workers; none if it computes on OpenMP or TBB
  /// OpenBLAS on its own threads: how many workers its pool should have, and whether OpenBLAS
  /// considers the pool made (blas_num_threads and blas_server_avail in driver/others). None if no
  /// symbol names the variable.
  std::optional<int> pool_workers;
  std::optional<bool> pool_made;

  std::string linked;                  ///< at start, preload, dlopen or static
  std::vector<std::string> needed_by;  ///< the names of the objects that are linked to it

  // A fork without and with forksafe: with no call in flight, and with calls in other threads.
  Fork idle;
  Fork in_flight;
  Fork idle_guarded;
  Fork in_flight_guarded;

  /// For LLVM's or Intel's OpenMP, and for a BLAS that computes with it: the value of
  /// KMP_INIT_AT_FORK, if that switches the runtime's fork handlers off. Otherwise empty.
  std::string fork_care_off;

  bool guarded = false;     ///< forksafe takes care of it in this process
  bool one_thread = false;  ///< this child has one thread, because calls were in flight too long
  int degraded_forks = 0;   ///< how many forks gave such a child

  const char* name() const;  ///< "OpenBLAS", "GNU OpenMP"
  bool is_openmp() const;    ///< an OpenMP runtime, not a BLAS
};

/// The library that a program can be linked to instead of having the runtime linked in.
const char* shared_library(const ThreadRuntime& runtime);

/// Whether libforksafe.so is loaded in a process, and switched on.
struct Guard {
  bool loaded = false;
  bool enabled = false;  ///< loaded, and not FORKSAFE=0
};

Guard find_guard(const Process& process, const Objects& objects);

/// Whether this is the forksafe library. Its doors stand between a runtime and the C library.
bool is_forksafe(const Object& object);

/// The runtimes in the order of their addresses. `workers` are counted if `stacks` is not empty.
std::vector<ThreadRuntime> find_thread_runtimes(const Process& process, const Objects& objects,
                                                const std::vector<ThreadStack>& stacks);

/// For a process with a `fork_care_off`: the text to put in front of `forksafe COMMAND` as a cure.
/// That command sets KMP_INIT_AT_FORK=TRUE unless the variable is set, so the text is empty, or
/// "KMP_INIT_AT_FORK=TRUE " if the user had set another value. None if the program itself has
/// replaced a good value.
std::optional<std::string> fork_care_setting(const Process& process);

/// The object that started the thread: the outermost one on its stack that is not the C library.
/// Null if the stack could not be read.
const Object* started_in(const ThreadStack& stack);

/// Whether a function of the runtime's object belongs to the runtime.
bool has_function(const ThreadRuntime& runtime, const std::string& function);

/// Whether the runtime has started this thread. Not for the main thread of a process.
bool is_worker_of(const ThreadRuntime& runtime, const ThreadStack& stack);

/// Whether an object is GNU OpenMP or has it linked in. LLVM's and Intel's OpenMP, which define the
/// same functions, are not.
bool is_gnu_openmp(const Object& object);

}  // namespace forksafe::cli
