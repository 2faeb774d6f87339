// SPDX-License-Identifier: Apache-2.0
// Why a process hangs: which of its threads waits in a BLAS or OpenMP runtime for a thread that a
// fork has left behind.
//
// A thread is taken to be stuck when it waits inside a runtime, at the same place, in two looks
// that are 100 ms apart, asleep or spinning there, and what it waits for can't come: in a forked
// child, team mates, workers or the holder of a lock that no thread of the child can be; in a
// parent, the end of a pool shutdown, or workers that a shutdown has ended.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"
#include "process/stacks.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {

/// All that one look at a process gives.
struct Look {
  explicit Look(pid_t pid);

  Process process;
  Objects objects;
  std::vector<ThreadStack> stacks;
  std::vector<ThreadRuntime> runtimes;
  Guard guard;
};

/// Where a thread waits in a runtime. Functions are empty where no symbol names them.
struct Wait {
  pid_t tid = 0;
  const ThreadRuntime* runtime = nullptr;  ///< that it waits in
  const ThreadRuntime* called = nullptr;   ///< that the program called; often the same
  std::string object;        ///< the name of the object that it waits in: a part of `runtime`
  std::string function;      ///< of that object: the innermost that is known for it, or has a name
  std::string entry;         ///< of `called`: what the program called
  std::string entry_object;  ///< the name of the object that has it
  std::string system_call;   ///< the C library's function that it waits in, if it has a name
  bool in_c_library = false;
  bool in_fork = false;                ///< called by fork's handlers
  uintptr_t stack = 0;                 ///< the stack pointer of the entry's frame
  bool is_worker = false;              ///< a thread of the runtime's own
  std::vector<std::string> functions;  ///< the names of all frames in runtimes, innermost first
};

/// The wait of each thread that is in a runtime, the process's main thread first.
std::vector<Wait> find_waits(const Look& look);

struct Diagnosis {
  pid_t pid = 0;
  std::string error;  ///< why the process can't be looked at; then there is nothing else
  bool stuck = false;
  std::string code;     ///< of the verdict, for programs: "gnu-openmp-team", "none"
  std::string what;     ///< "It waits in GOMP_parallel (libgomp.so.1) for ..."
  std::string cure;     ///< empty where nothing is to be cured
  std::string place;    ///< "GOMP_parallel (libgomp.so.1)", of the thread that is stuck
  std::string library;  ///< its path
  pid_t tid = 0;        ///< of that thread
  std::unique_ptr<Look> look;
};

/// A diagnosis of each process, in a fifth of a second for all of them and some milliseconds for
/// each.
std::vector<Diagnosis> diagnose_processes(const std::vector<pid_t>& pids);

}  // namespace forksafe::cli
