// SPDX-License-Identifier: Apache-2.0
// Signal masks, also where a filter of system calls, as that of a container, forbids to read them
// or to take signals.
#include "signals.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <string>

#include "report.h"
#include "support.h"

using forksafe::block_signals;
using forksafe::kNotBlocked;
using forksafe::restore_signals;
using forksafe::signal_bit;

namespace {

constexpr uint32_t kAnyPointer = ~uint32_t{0};

// By the system call where it is allowed: under QEMU /proc shows the emulator's mask.
uint64_t mask_now() {
  uint64_t mask = 0;
  if (syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &mask, sizeof mask) == 0) return mask;
  const std::string status = read_file("/proc/self/status");
  return std::stoull(status.substr(status.find("SigBlk:") + 7), nullptr, 16);
}

std::string expect_mask(uint64_t mask) {
  return mask_now() == mask ? "" : "the mask has become " + std::to_string(mask_now());
}

// Whether a thread can take a signal that a write to this pipe has raised. Under QEMU it can't.
bool takes_signal_of(int pipe_without_reader) {
  sigset_t one;
  sigset_t before;
  sigemptyset(&one);
  sigaddset(&one, SIGPIPE);
  sigprocmask(SIG_BLOCK, &one, &before);
  const timespec at_once = {};
  if (write(pipe_without_reader, "", 1) >= 0 || sigtimedwait(&one, nullptr, &at_once) != SIGPIPE) {
    return false;
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return true;
}

void check_nothing(const std::string& problem) {
  if (problem == "no seccomp" || problem == "no sigtimedwait") {
    WARN("skipped: " << problem << " here");
  } else {
    CHECK(problem == "");
  }
}

}  // namespace

TEST_CASE("signals are blocked, and their mask is restored", "[signals]") {
  const std::string problem = run_in_child([]() -> std::string {
    const uint64_t before = mask_now();
    const uint64_t mask = block_signals();
    if (mask != before) return "another mask was read";
    if ((mask_now() & signal_bit(SIGUSR1)) == 0) return "SIGUSR1 is not blocked";
    if ((mask_now() & signal_bit(SIGSEGV)) != 0) return "a fault is blocked";
    restore_signals(mask);
    if (mask_now() != before) return "another mask is restored";
    // What the program has blocked stays blocked: such a signal may be pending.
    forksafe::set_signal_mask(~uint64_t{0});
    const uint64_t all = mask_now();
    block_signals();
    return expect_mask(all);
  });
  check_nothing(problem);
}

TEST_CASE("a mask that can't be read is not restored", "[signals]") {
  const std::string problem = run_in_child([]() -> std::string {
    forksafe::set_signal_mask(signal_bit(SIGUSR1));
    if (!forbid_call(SYS_rt_sigprocmask, 2, kAnyPointer)) return "no seccomp";
    const uint64_t mask = block_signals();
    if (mask != kNotBlocked) return "block_signals returned " + std::to_string(mask);
    restore_signals(mask);
    return expect_mask(signal_bit(SIGUSR1));
  });
  check_nothing(problem);
}

TEST_CASE("a line that nobody reads raises no SIGPIPE", "[signals]") {
  const bool takes = GENERATE(true, false);
  CAPTURE(takes);
  const std::string problem = run_in_child([&]() -> std::string {
    int ends[2];
    if (pipe(ends) != 0 || dup2(ends[1], STDERR_FILENO) < 0) return "no pipe";
    close(ends[0]);
    signal(SIGPIPE, SIG_DFL);
    if (!takes_signal_of(STDERR_FILENO)) return "no sigtimedwait";
    if (!takes && !forbid_call(SYS_rt_sigtimedwait, 0, kAnyPointer)) return "no seccomp";
    const uint64_t before = mask_now();
    forksafe::report_to_stderr("a line");
    if (takes) return expect_mask(before);
    // A signal that can't be taken stays blocked.
    return (mask_now() & signal_bit(SIGPIPE)) != 0 ? "" : "SIGPIPE is not blocked";
  });
  check_nothing(problem);
}
