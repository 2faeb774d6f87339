// SPDX-License-Identifier: Apache-2.0
// Tells why a process hangs: which of its threads waits in a BLAS or OpenMP runtime for something
// that can't come.
//
// A thread is stuck if it waits inside a runtime at the same place in two looks, 100 ms apart,
// asleep or spinning, and if no thread can end the wait. In a forked child, that is a wait for team
// mates, workers or the holder of a lock that exist only in the parent. In a parent, it is a wait
// for the end of a pool shutdown, or for workers that a shutdown has ended. In any process, it is a
// wait for workers that could not be made, or at exit for one that does not end.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/permission.h"
#include "process/process.h"
#include "process/stacks.h"
#include "verdicts/evidence.h"
#include "verdicts/other_threads.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {

/// Everything that is read of a process in one look.
struct Look {
  explicit Look(pid_t pid) : Look(Process(pid)) {}
  explicit Look(Process&& its_process);
  Look(Process&& its_process, Objects&& its_objects, std::vector<ThreadStack>&& its_stacks);

  Process process;
  Objects objects;
  std::vector<ThreadStack> stacks;
  std::vector<ThreadRuntime> runtimes;
  std::vector<OtherThreads> others;  ///< the threads of no runtime
  Guard guard;
};

/// Where a thread waits in a runtime. A function is empty if no symbol names it.
struct Wait {
  pid_t tid = 0;
  const ThreadRuntime* runtime = nullptr;  ///< in which it waits
  const ThreadRuntime* called = nullptr;   ///< that the program called; often the same one
  std::string object;        ///< the name of the object in which it waits: a part of `runtime`
  std::string function;      ///< of that object: the innermost known place, or the innermost name
  std::string entry;         ///< of `called`: what the program called
  std::string entry_object;  ///< the name of the object that has it
  std::string system_call;   ///< the function of the C library in which it waits, if it has a name
  bool in_c_library = false;
  bool in_fork = false;                ///< called by a fork handler
  bool in_exit = false;                ///< called by a destructor while the process exits
  uintptr_t stack = 0;                 ///< the stack pointer of the entry's frame
  bool is_worker = false;              ///< a thread of the runtime's own
  std::vector<std::string> functions;  ///< the names of all frames in runtimes, innermost first
};

/// The wait of each thread that is in a runtime, the process's main thread first.
std::vector<Wait> find_waits(const Look& look);

struct Diagnosis {
  pid_t pid = 0;
  std::string error;  ///< why the process can't be read; then there is no verdict
  bool stuck = false;
  bool unknown = false;  ///< it may be stuck; `what` says what is known
  /// Why the process may not be traced. Then there is an error and no look, but evidence unless the
  /// process has ended.
  std::optional<Obstacle> obstacle;
  std::optional<Evidence> evidence;
  std::string code;     ///< of the verdict, to be read by programs: "gnu-openmp-team", "none"
  std::string what;     ///< "It waits in GOMP_parallel (libgomp.so.1) for ..."
  std::string cure;     ///< empty if there is nothing to cure
  std::string place;    ///< where the thread waits: "GOMP_parallel (libgomp.so.1)"
  std::string library;  ///< the path of the library at `place`
  pid_t tid = 0;        ///< of the thread that is stuck, or may be; 0 if none is named
  std::unique_ptr<Look> look;
};

/// Diagnoses the process in a core, of which there is one look. So a thread is stuck only if it
/// waits for another one in a system call, and no thread of the core can end the wait. Throws Error
/// if the core can't be read.
Diagnosis diagnose_core(const std::string& path);

/// Diagnoses each process. Takes a fifth of a second for all of them, plus some milliseconds for
/// each. On a busy machine, up to half a second more.
std::vector<Diagnosis> diagnose_processes(const std::vector<pid_t>& pids);

}  // namespace forksafe::cli
