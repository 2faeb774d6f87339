// SPDX-License-Identifier: Apache-2.0
#include "commands/watch.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/terminal.h"
#include "process/as_child.h"
#include "process/process.h"
#include "process/stacks.h"
#include "report.h"
#include "verdicts/diagnosis.h"

namespace forksafe::cli {
namespace {

using Clock = std::chrono::steady_clock;

// A state of a thread that may last for ever.
struct Still {
  ThreadState state;
  unsigned long futex = 0;  // at which it waits with a timeout
  Clock::time_point since;
  double next_look = 0;  // in seconds after `since`
};

constexpr size_t kMostAtOnce = 32;  // processes

struct Watched {
  unsigned long long started = 0;  // tells the process from a later one with the same id
  bool is_told = false;
  bool has_forked = false;
  std::map<pid_t, Still> threads;
};

// None for a state that ends.
std::optional<Still> read_still(pid_t pid, pid_t tid) {
  Still still;
  still.state = read_thread_state(pid, tid);
  if (still.state.letter == 'R') return still;
  const std::optional<SystemCall> call = read_system_call(pid, tid);
  const FutexWait wait = futex_wait(call);
  if (still.state.letter != 'S' || wait == FutexWait::kNone) return std::nullopt;
  if (wait == FutexWait::kPrivateTimed) still.futex = call->arguments[0];
  return still;
}

// A thread that waits for a lock with a timeout wakes up and waits again, as Python's take_gil does
// every 5 ms.
bool goes_on(const Still& before, const Still& now) {
  return before.state.letter == now.state.letter && (before.state.switches == now.state.switches ||
                                                     (now.futex != 0 && before.futex == now.futex));
}

class Watch {
 public:
  explicit Watch(const WatchOptions& options) : options_(options) {
    if (!options_.log.empty()) set_log(options_.log.c_str());
  }

  /// Returns true if there is more to look at.
  bool look(pid_t program) {
    const auto now = Clock::now();
    std::map<pid_t, Watched> still_there;
    std::vector<pid_t> asleep, running;  // that are due
    for (const pid_t pid : process_tree(program)) {
      const unsigned long long started = read_start_time(pid);
      if (started == 0) continue;
      Watched watched = std::move(watched_[pid]);
      if (watched.started != started) watched = {started, false, false, {}};
      if (logging()) note_fork(pid, &still_there);
      const char due = watched.is_told ? '\0' : note_threads(pid, now, &watched.threads);
      if (due != '\0') (due == 'R' ? running : asleep).push_back(pid);
      still_there[pid] = std::move(watched);
    }
    watched_ = std::move(still_there);
    // A look at threads that run may take seconds, one at those that sleep takes little more for
    // many than for one.
    const size_t all = asleep.size() + running.size();
    const size_t most = asleep.empty() ? 1 : kMostAtOnce;
    std::vector<pid_t> due = asleep.empty() ? std::move(running) : std::move(asleep);
    due.resize(std::min(due.size(), most));
    for (const Diagnosis& d : diagnose_processes(due)) {
      Watched& watched = watched_[d.pid];
      for (auto& [tid, still] : watched.threads) {
        const double age = seconds_between(still.since, now);
        if (age >= still.next_look) still.next_look = 2 * age;
      }
      const auto thread = watched.threads.find(d.tid);
      if (!d.stuck || thread == watched.threads.end()) continue;
      const double age = seconds_between(thread->second.since, now);
      if (age < options_.seconds || read_start_time(d.pid) != watched.started) continue;
      watched.is_told = true;
      tell(d, age);
      if (options_.abort) kill(d.pid, SIGABRT);
    }
    return all > due.size();
  }

 private:
  static double seconds_between(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  // The state of a thread that has been in it for long enough: 'R' if one of them runs, otherwise
  // 'S', or 0.
  char note_threads(pid_t pid, Clock::time_point now, std::map<pid_t, Still>* threads) const {
    std::map<pid_t, Still> still_there;
    char due = '\0';
    for (const pid_t tid : thread_ids(pid)) {
      std::optional<Still> still = read_still(pid, tid);
      if (!still) continue;
      still->since = now;
      still->next_look = options_.seconds;
      const auto before = threads->find(tid);
      if (before != threads->end() && goes_on(before->second, *still)) still = before->second;
      if (due != 'R' && seconds_between(still->since, now) >= still->next_look) {
        due = still->state.letter;
      }
      still_there[tid] = *still;
    }
    *threads = std::move(still_there);
    return due;
  }

  // For a child: names the threads of its parent that nobody guards. Once for each library, in a
  // program. That is what the parent has now, some time after the fork.
  void note_fork(pid_t child, std::map<pid_t, Watched>* parents) {
    ProcessStatus status;
    if (!read_status(child, &status) || !status.forked) return;
    const auto parent = parents->find(status.parent);
    if (parent == parents->end() || parent->second.has_forked) return;
    parent->second.has_forked = true;
    if (thread_ids(parent->first).size() < 2) return;
    try {
      const Look look(parent->first);
      for (const OtherThreads& other : look.others) {
        if (other.object == nullptr || other.start_again) continue;
        const std::string path = other.object->path();
        if (!logged_.emplace(look.process.program(), path).second) continue;
        const std::string line = fmt::format("{} forks beside {}, which nobody guards: {}",
                                             look.process.name(), describe(other), path);
        report(printable(line).c_str());
      }
    } catch (const Error&) {
      // The parent has ended, or is a static program.
    }
  }

  // If standard error is a pipe that is full or has no reader, the report is lost. The command must
  // not wait for that reader, nor get the SIGPIPE, which run_as_child() takes.
  void tell(const Diagnosis& d, double age) const {
    std::string text =
        fmt::format("forksafe: {} has been stuck for {:.3g} s.\n", d.look->process.name(), age);
    text += wrapped(d.what, "  ");
    if (!d.cure.empty()) text += fmt::format("  Cure: {}\n", d.cure);
    text += options_.abort ? "  It gets SIGABRT.\n"
                           : fmt::format("  Its stacks:  forksafe diagnose {}\n", d.pid);
    text = shown(text);
    if (stderr_is_full()) return;
    // One write, so that other lines do not come between, and no more than there is room for.
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, text.data(), std::min<size_t>(text.size(), PIPE_BUF));
  }

  WatchOptions options_;
  std::map<pid_t, Watched> watched_;
  std::set<std::pair<std::string, std::string>> logged_;  // programs and libraries
};

// Looks at the child as a full look does.
void check_permission(pid_t child) {
  try {
    const Process process(child);
    read_stacks(process, Objects(process));
  } catch (const Error& e) {
    throw Error(fmt::format("--watch: {}", e.what()));
  }
}

}  // namespace

int run_watched(const std::vector<std::string>& command,
                const std::vector<std::string>& environment, const WatchOptions& options) {
  Watch watch(options);
  // Often enough to see a wait soon after `seconds`, and rarely enough to cost nothing.
  const double pause = std::clamp(options.seconds / 4, 0.1, 5.0);
  return run_as_child(command, environment, pause, check_permission,
                      [&](pid_t program) { return watch.look(program); });
}

}  // namespace forksafe::cli
