// SPDX-License-Identifier: Apache-2.0
// Tries in a scratch process (probe.cpp) whether fork is safe with a BLAS or an OpenMP runtime.
#pragma once

#include <string>
#include <vector>

namespace forksafe::cli {

/// What the parent does at the fork: nothing, or two other threads compute.
enum class Situation { kIdle, kInFlight };

struct Proof {
  enum class End {
    kPassed,     ///< every child, and the parent, got exact results
    kHung,       ///< a child or the parent made no more progress
    kCrashed,    ///< a signal ended a child or the parent, or it exited with an error
    kInexact,    ///< a child or the parent got a different result
    kNotProven,  ///< one thread only, no library to compute with, can't be loaded, too slow
  };
  End end;
  std::string detail;  ///< one line for a person: "a child hung at the first fork"
  int forks;           ///< how many children had the right result
  double seconds;      ///< how long the trial took
};

/// Runs `probe` (the path of forksafe-probe) on `library`. `dependencies` are the libraries that
/// `library` needs, in the versions of the target process; they are loaded first, in this order.
/// `preload` is the path of libforksafe.so, or empty for a run without it. Other entries of
/// LD_PRELOAD are kept.
///
/// The probe gets the environment of this process, which says how many threads the library uses. A
/// number above 2 is replaced by 2. The trial takes at most two seconds if all is well, longer
/// until a hang is certain, and `at_most` seconds in any case. All its processes are ended and
/// reaped at the end; they also end if this process is killed.
///
/// Throws Error if `probe` can't be run.
Proof prove(const std::string& probe, const std::string& library,
            const std::vector<std::string>& dependencies, Situation situation,
            const std::string& preload, double at_most = 60);

}  // namespace forksafe::cli
