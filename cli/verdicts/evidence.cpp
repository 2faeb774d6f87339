// SPDX-License-Identifier: Apache-2.0
#include "verdicts/evidence.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "process/objects.h"
#include "verdicts/runtime_report.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {
namespace {

// How many other threads the parent has that are not younger than the child: the child lacks them.
// A clock tick is 10 ms.
int count_older_in_parent(const ProcessStatus& child) {
  if (forked_by(child) == 0) return 0;
  const unsigned long long forked = read_start_time(child.pid);
  const std::vector<pid_t> threads = thread_ids(child.parent);
  const auto older = std::count_if(threads.begin(), threads.end(), [&](pid_t tid) {
    const unsigned long long started = read_start_time(tid);
    return started != 0 && started <= forked;
  });
  return std::max(static_cast<int>(older) - 1, 0);  // without the one that forked
}

// Yama hides the system call, but not the function of the kernel in which a thread waits.
bool is_in_futex(pid_t pid, pid_t tid) {
  if (const auto call = read_system_call(pid, tid)) {
    const FutexWait wait = futex_wait(call);
    return wait == FutexWait::kPrivate || wait == FutexWait::kShared;
  }
  std::string function;
  std::ifstream(fmt::format("/proc/{}/task/{}/wchan", pid, tid)) >> function;
  return function.compare(0, 5, "futex") == 0;
}

std::string counted(int count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string joined(const std::vector<std::string>& texts) {
  std::string result;
  for (size_t i = 0; i < texts.size(); ++i) {
    result += (i == 0 ? "" : i + 1 < texts.size() ? ", " : " and ") + texts[i];
  }
  return result;
}

}  // namespace

bool Evidence::looks_stuck() const {
  return status.forked && older_in_parent > 0 && in_futex == status.threads && !runtimes.empty();
}

Evidence find_evidence(pid_t pid, const std::set<pid_t>& asleep) {
  Evidence evidence;
  if (!read_status(pid, &evidence.status)) {
    throw Error(fmt::format("process {}: it has just ended", pid));
  }
  evidence.name = fmt::format("{} ({})", pid, evidence.status.name);
  evidence.older_in_parent = count_older_in_parent(evidence.status);
  for (const pid_t tid : thread_ids(pid)) {
    if (asleep.count(tid) == 0) continue;
    ++evidence.asleep;
    evidence.in_futex += is_in_futex(pid, tid) ? 1 : 0;
  }
  try {
    const Process process(pid);
    const Objects objects(process);
    evidence.name = process.name();
    evidence.in_sight = objects.size() > 0;
    for (const ThreadRuntime& runtime : find_thread_runtimes(process, objects, {})) {
      evidence.runtimes.push_back(describe(runtime));
    }
  } catch (const Error&) {
    // Its loaded files may not be read either.
  }
  return evidence;
}

std::string describe(const Evidence& e) {
  std::string text;
  if (forked_by(e.status) > 0) {
    text += fmt::format("This is a forked child of {}. ", e.status.parent);
    if (e.older_in_parent > 0) {
      text += fmt::format("It lacks {} of its parent. ", counted(e.older_in_parent, "thread"));
    }
  } else {
    text += e.status.forked ? "This is a forked child; its parent has ended. "
                            : "This is not a forked child. ";
  }
  text += fmt::format("It has {}", counted(e.status.threads, "thread"));
  if (e.asleep == 0) {
    text += e.status.threads == 1 ? ", which does not sleep. " : ", none of which sleeps. ";
  } else {
    const int shown = e.in_futex > 0 ? e.in_futex : e.asleep;
    text += e.status.threads == 1       ? ", which "
            : shown == e.status.threads ? ", all of which "
                                        : fmt::format(", of which {} ", shown);
    text += shown == 1 ? (e.in_futex > 0 ? "waits in futex(2). " : "sleeps. ")
                       : (e.in_futex > 0 ? "wait in futex(2). " : "sleep. ");
  }
  if (!e.runtimes.empty()) {
    text += fmt::format("It has loaded {}. ", joined(e.runtimes));
  } else {
    text += e.in_sight ? "It has loaded no runtime that forksafe knows. "
                       : "What it has loaded can't be seen. ";
  }
  return text + (e.looks_stuck()
                     ? "A child that waits for lost threads looks like that, but so may a healthy "
                       "one that waits for work."
                     : "That does not tell whether it is stuck.");
}

}  // namespace forksafe::cli
