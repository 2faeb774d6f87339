// SPDX-License-Identifier: Apache-2.0
// Whether fork hurts with a BLAS or an OpenMP runtime, tried in a scratch process (probe.cpp).
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

/// What the parent does at the fork: nothing, or it computes in two other threads.
enum class Situation { kIdle, kInFlight };

struct Proof {
  enum class End {
    kPassed,     ///< every child, and the parent, got exact results
    kHung,       ///< a child or the parent stopped making progress
    kCrashed,    ///< a child or the parent was ended by a signal, or ended itself
    kInexact,    ///< a child or the parent got another result
    kNotProven,  ///< one thread only, not a library to compute with, can't be loaded, too slow
  };
  End end;
  std::string detail;  ///< one line for a person: "a child hung at the first fork"
  int forks;           ///< children that answered well
  double seconds;      ///< how long it took
};

/// Runs `probe` (the path of forksafe-probe) on `library`, with `dependencies` loaded before it in
/// this order: the libraries it needs, as the process in question has them. `preload` is the path
/// of libforksafe.so, or empty for a run without it; what else LD_PRELOAD names is kept.
///
/// The environment is this process's: it says whether the library uses threads (a number of threads
/// above 2 is made 2). Takes two seconds or less when all is well, some more until a hang is
/// certain, `at_most` seconds in any case. Ends and reaps what it started; that ends too when this
/// process is killed.
///
/// Throws Error when `probe` can't be run.
Proof prove(const std::string& probe, const std::string& library,
            const std::vector<std::string>& dependencies, Situation situation,
            const std::string& preload, double at_most = 60);

}  // namespace forksafe::cli
