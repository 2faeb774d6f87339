// SPDX-License-Identifier: Apache-2.0
#include "commands/list.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/terminal.h"
#include "process/permission.h"
#include "process/trace.h"
#include "verdicts/runtime_report.h"

namespace forksafe::cli {
namespace {

// Collects what each process has loaded, and prints that as text or as JSON.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  void add(const Process& process, const std::vector<ThreadRuntime>& runtimes,
           const std::vector<OtherThreads>& others) {
    if (json_) {
      for (auto entry : runtime_json(runtimes)) {
        entry["pid"] = process.pid();
        entry["command"] = process.arguments();
        entries_.push_back(entry);
      }
      for (auto entry : other_threads_json(others)) {
        entry["pid"] = process.pid();
        entry["command"] = process.arguments();
        entries_.push_back(entry);
      }
      return;
    }
    if (runtimes.empty() && others.empty()) return;
    if (!text_.empty()) text_ += '\n';
    text_ += fmt::format("process {}\n{}{}{}{}", process.name(),
                         runtimes.empty() ? "" : runtime_table(runtimes), linked_in_note(runtimes),
                         other_threads_note(others), fork_care_note(process, runtimes));
  }

  void print(const std::string& nothing) const {
    if (json_) {
      print_json(entries_);
    } else {
      print_text(text_.empty() ? nothing + "\n" : text_);
    }
  }

 private:
  bool json_;
  std::string text_;
  nlohmann::ordered_json entries_ = nlohmann::ordered_json::array();
};

// A process in `forksafe list --all`. It keeps the objects: what is read of a file is shared with
// the processes that come later.
struct Listed {
  Process process;
  Objects objects;
  std::vector<ThreadRuntime> runtimes;
  Guard guard;

  explicit Listed(pid_t pid)
      : process(pid),
        objects(process),
        runtimes(find_thread_runtimes(process, objects, {})),
        guard(find_guard(process, objects)) {
    // Without its memory, nothing tells whether the library is switched on in it.
    char byte;
    if (guard.loaded && !process.read_memory((*objects.begin())->span().begin, &byte, 1)) {
      throw NotPermitted(process.name(), find_obstacle(read_access(process.status()), pid));
    }
  }

  std::string runtime_names() const {
    std::string names;
    for (const ThreadRuntime& r : runtimes) names += (names.empty() ? "" : ", ") + describe(r);
    return names.empty() ? "-" : names;
  }
};

// Each process is read as it is, and none is stopped. So the workers are not counted.
int list_all(bool json) {
  std::vector<std::unique_ptr<Listed>> all;
  int unreadable = 0;
  std::vector<pid_t> pids = all_processes();
  std::sort(pids.begin(), pids.end());
  for (const pid_t pid : pids) {
    ProcessStatus status;
    if (pid == getpid() || !read_status(pid, &status)) continue;
    if (geteuid() != 0 && status.user != geteuid()) continue;
    // Only a program has a command line: a kernel thread has none, and a zombie has none left.
    if (status.state == 'Z' || status.state == 'X' || read_arguments(pid).empty()) continue;
    try {
      all.push_back(std::make_unique<Listed>(pid));
    } catch (const Error&) {
      if (read_status(pid, &status) && status.state != 'Z') ++unreadable;
    }
  }

  std::vector<std::vector<Cell>> rows;
  auto entries = nlohmann::ordered_json::array();
  std::map<uid_t, std::string> names;
  for (const auto& listed : all) {
    const ProcessStatus& status = listed->process.status();
    std::string& user = names[status.user];
    if (user.empty()) user = user_name(status.user);
    const Cell guarded = guard_cell(listed->runtimes, listed->guard);
    if (json) {
      entries.push_back({{"pid", status.pid},
                         {"user", user},
                         {"name", status.name},
                         {"command", listed->process.arguments()},
                         {"guarded", guarded.text},
                         {"threads", status.threads},
                         {"runtimes", runtime_json(listed->runtimes)}});
    } else {
      rows.push_back({{std::to_string(status.pid)},
                      {user},
                      {status.name},
                      guarded,
                      {std::to_string(status.threads)},
                      {listed->runtime_names()}});
    }
  }
  if (json) {
    print_json(entries);
  } else {
    print_text(table({"PID", "USER", "NAME", "GUARDED", "THREADS", "RUNTIMES"}, rows));
  }
  if (unreadable > 0) {
    fmt::print(
        stderr,
        "forksafe: list: {} more process{} can't be read: static, of another architecture, or "
        "not permitted\n",
        unreadable, unreadable == 1 ? "" : "es");
  }
  return 0;
}

constexpr const char* kNothing = "no BLAS or OpenMP runtime that forksafe knows";

}  // namespace

int list(const ListOptions& options) {
  if (options.all) return list_all(options.json);
  Report report(options.json);
  if (options.pid) {
    const Process process(*options.pid);
    const Objects objects(process);
    std::vector<ThreadRuntime> runtimes = find_thread_runtimes(process, objects, {});
    std::vector<OtherThreads> others;
    // Stop the threads only if there may be workers to count.
    if (!runtimes.empty() || process.status().threads > 1) {
      try {
        const std::vector<ThreadStack> stacks = read_settled_stacks(process, objects);
        runtimes = find_thread_runtimes(process, objects, stacks);
        others = find_other_threads(process, objects, stacks, runtimes);
      } catch (const Error& e) {
        fmt::print(stderr, "forksafe: list: threads are not counted: {}\n", printable(e.what()));
      }
    }
    report.add(process, runtimes, others);
    report.print(fmt::format("process {} has loaded {}", process.name(), kNothing));
    return 0;
  }

  const Traced traced = trace(options.command, 0, [&](pid_t pid, Moment moment) {
    ProcessStatus status;
    // A forked child has the same runtimes as its parent, which is listed.
    if (moment != Moment::kExit || !read_status(pid, &status) || status.forked) return true;
    try {
      const Process process(pid);
      const Objects objects(process);
      report.add(process, find_thread_runtimes(process, objects, {}), {});
    } catch (const Error&) {
      // A static program, or one of another architecture, has nothing to list.
    }
    return true;
  });
  report.print(fmt::format("the command loads {}", kNothing));
  if (WIFSIGNALED(traced.status)) {
    fmt::print(stderr, "forksafe: list: the command was ended by signal {}\n",
               WTERMSIG(traced.status));
  } else if (WEXITSTATUS(traced.status) != 0) {
    fmt::print(stderr, "forksafe: list: the command ended with status {}\n",
               WEXITSTATUS(traced.status));
  }
  return 0;
}

}  // namespace forksafe::cli
