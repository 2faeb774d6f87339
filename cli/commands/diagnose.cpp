// SPDX-License-Identifier: Apache-2.0
#include "commands/diagnose.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/terminal.h"
#include "process/python_stack.h"
#include "verdicts/diagnosis.h"
#include "verdicts/runtime_report.h"

namespace forksafe::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Diagnosis& d, const PythonStacks& python) {
  const Process& process = d.look->process;
  Json result;
  result["pid"] = process.pid();
  result["parent"] = process.status().parent;
  result["command"] = process.arguments();
  result["forked"] = process.status().forked;
  result["stuck"] = d.unknown ? Json() : Json(d.stuck);
  result["code"] = d.code;
  result["text"] = d.what;
  result["cure"] = d.cure.empty() ? Json() : Json(d.cure);
  const bool has_place = d.tid != 0;
  result["thread"] = has_place ? Json(d.tid) : Json();
  result["place"] = has_place ? Json(d.place) : Json();
  result["library"] = has_place ? Json(d.library) : Json();
  result["guarded"] = d.look->guard.enabled;
  result["runtimes"] = runtime_json(d.look->runtimes);
  result["other_threads"] = other_threads_json(d.look->others);
  result["threads"] = Json::array();
  for (const ThreadStack& stack : d.look->stacks) {
    Json thread;
    thread["tid"] = stack.tid;
    thread["name"] = stack.name;
    thread["frames"] = Json::array();
    for (const Frame& frame : stack.frames) {
      thread["frames"].push_back(
          {{"function", frame.function.empty() ? Json() : Json(frame.function)},
           {"object", frame.object != nullptr ? Json(frame.object->path()) : Json()},
           {"address", fmt::format("{:#x}", frame.address)}});
    }
    const auto found = python.frames.find(stack.tid);
    if (found != python.frames.end()) thread["python"] = found->second;
    result["threads"].push_back(thread);
  }
  return result;
}

// Of a process that can't be read.
Json error_json(const Diagnosis& d) {
  if (!d.evidence) return {{"pid", d.pid}, {"error", d.error}};
  const Evidence& e = *d.evidence;
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return {{"pid", d.pid},
          {"parent", e.status.parent},
          {"command", read_arguments(d.pid)},
          {"forked", e.status.forked},
          {"stuck", nullptr},
          {"code", d.code},
          {"text", d.what},
          {"error", d.error},
          {"missing", d.obstacle->code},
          {"grant",
           {{"docker", or_null(d.obstacle->docker)},
            {"kubernetes", or_null(d.obstacle->kubernetes)},
            {"slurm", or_null(d.obstacle->slurm)}}},
          {"evidence",
           {{"threads", e.status.threads},
            {"asleep", e.asleep},
            {"in_futex", e.in_futex},
            {"older_in_parent", e.older_in_parent},
            {"runtimes", e.in_sight ? Json(e.runtimes) : Json()}}}};
}

// What /proc says of a process that may not be traced.
std::string evidence_text(const Diagnosis& d) {
  return paint(d.evidence->name + " may not be traced, so there is no verdict.", Colour::kYellow) +
         "\n" + wrapped(d.what, "  ");
}

std::string grants(const Obstacle& obstacle) {
  std::string text;
  for (const auto& [where, line] :
       {std::pair("Docker:", &obstacle.docker), std::pair("Kubernetes:", &obstacle.kubernetes),
        std::pair("Slurm:", &obstacle.slurm)}) {
    if (!line->empty()) text += fmt::format("    {:<12} {}\n", where, *line);
  }
  return text.empty() ? "" : "  To trace it:\n" + text;
}

std::string headline(const Diagnosis& d) {
  const std::string name = d.look->process.name();
  const bool in_core = d.look->process.core() != nullptr;
  if (d.unknown) {
    return paint(
        name + (in_core ? " may have been stuck. Its core does not tell." : " may be stuck."),
        Colour::kYellow);
  }
  if (d.stuck) return paint(name + (in_core ? " was stuck." : " is stuck."), Colour::kRed);
  return paint(name + (in_core ? " was not stuck in a runtime." : " is not stuck in a runtime."),
               Colour::kGreen);
}

std::string verdict(const Diagnosis& d) {
  std::string text = headline(d);
  text += "\n" + wrapped(d.what, "  ");
  // The cure ends with a command that the user copies, so it stays on one line.
  if (!d.cure.empty()) text += fmt::format("  {} {}\n", paint("Cure:", Colour::kBold), d.cure);
  return text;
}

std::string stacks(const Diagnosis& d, const PythonStacks& python) {
  std::string text;
  for (const ThreadStack& stack : d.look->stacks) {
    const char* mark = stack.tid != d.tid ? ""
                       : d.stuck          ? ", the one that is stuck"
                                          : ", the one that may be stuck";
    text += "\n" +
            paint(fmt::format("Thread {}{}{}", stack.tid,
                              stack.name.empty() ? "" : fmt::format(" ({})", stack.name), mark),
                  Colour::kBold) +
            "\n";
    if (stack.frames.empty())
      text += "  its stack could not be read, because the thread did not stop\n";
    for (const Frame& frame : stack.frames) {
      text +=
          fmt::format("  {}  {}\n",
                      frame.function.empty() ? fmt::format("{:#x}", frame.address) : frame.function,
                      frame.object != nullptr ? frame.object->name() : "");
    }
    const auto found = python.frames.find(stack.tid);
    if (found == python.frames.end()) continue;
    text += "  in Python:\n";
    for (const std::string& frame : found->second) text += "    " + frame + "\n";
  }
  if (!python.reason.empty()) text += "\n" + python.reason + "\n";
  return text;
}

// The process and its descendants. Says so if that is not all of them.
std::vector<Diagnosis> diagnose_descendants(pid_t pid, int* left_out) {
  const std::vector<pid_t> pids = process_tree(pid, left_out);
  if (*left_out > 0) {
    fmt::print(stderr,
               "forksafe: diagnose: {} process{} more than {} generations below {} {} not looked "
               "at\n",
               *left_out, *left_out == 1 ? "" : "es", kMostGenerations, pid,
               *left_out == 1 ? "was" : "were");
  }
  return diagnose_processes(pids);
}

int exit_status(const std::vector<Diagnosis>& tree, int left_out) {
  if (std::any_of(tree.begin(), tree.end(), [](const Diagnosis& d) { return d.stuck; })) return 1;
  // It may not be traced, or it may be stuck.
  const auto is_unknown = [](const Diagnosis& d) { return d.unknown; };
  return left_out > 0 || std::any_of(tree.begin(), tree.end(), is_unknown) ? 2 : 0;
}

// A line if there are such descendants.
std::string about_descendants(pid_t pid, size_t count, const char* what, Colour colour) {
  if (count == 0) return "";
  return "  " +
         paint(fmt::format("But {} of its descendants {} stuck:  forksafe diagnose --children {}",
                           count, what, pid),
               colour) +
         "\n";
}

// Diagnoses one process and prints all its stacks. Also tells if descendants are stuck.
int diagnose_one(const DiagnoseOptions& options) {
  int left_out = 0;
  const std::vector<Diagnosis> tree = diagnose_descendants(options.pid, &left_out);
  const Diagnosis& d = tree.front();
  if (d.look == nullptr) {
    if (d.evidence && options.json) print_json(Json::array({error_json(d)}));
    if (d.evidence && !options.json) print_text(evidence_text(d) + grants(*d.obstacle));
    throw Error(d.error);
  }
  const PythonStacks python = read_python_stacks(d.look->process, d.look->objects);
  std::vector<pid_t> stuck;
  size_t doubtful = 0;
  for (const Diagnosis& other : tree) {
    if (other.pid == d.pid) continue;
    if (other.stuck) stuck.push_back(other.pid);
    if (other.unknown) ++doubtful;
  }
  if (options.json) {
    Json result = to_json(d, python);
    result["stuck_descendants"] = stuck;
    print_json(Json::array({result}));
  } else {
    print_text(verdict(d) +
               about_descendants(options.pid, stuck.size(), stuck.size() == 1 ? "is" : "are",
                                 Colour::kRed) +
               about_descendants(options.pid, doubtful, "may be", Colour::kYellow) +
               stacks(d, python));
  }
  return exit_status(tree, left_out);
}

std::string without(std::string text, const std::string& part) {
  const size_t at = text.find(part);
  return at == std::string::npos ? text : text.erase(at, part.size());
}

// The same for the children of a process that a reader need not tell apart: the verdict without the
// ids of the child and of its thread.
std::string kind_of(const Diagnosis& d) {
  if (d.evidence) {
    return fmt::format("{} {}", d.evidence->status.parent,
                       without(evidence_text(d), std::to_string(d.pid)));
  }
  if (d.look == nullptr) return without(d.error, fmt::format("process {}", d.pid));
  return fmt::format(
      "{} {}", d.look->process.status().parent,
      without(without(verdict(d), std::to_string(d.pid)), fmt::format("Its thread {}", d.tid)));
}

// One verdict for each process. That of equal children is printed once, with the ids of all.
std::string verdicts(const std::vector<Diagnosis>& tree) {
  std::vector<std::vector<const Diagnosis*>> groups;
  std::map<std::string, size_t> known;
  for (const Diagnosis& d : tree) {
    const auto [entry, is_new] = known.try_emplace(kind_of(d), groups.size());
    if (is_new) groups.emplace_back();
    groups[entry->second].push_back(&d);
  }
  std::string text;
  for (const auto& group : groups) {
    const Diagnosis& first = *group.front();
    text += text.empty() ? "" : "\n";
    text += first.look != nullptr ? verdict(first)
            : first.evidence      ? evidence_text(first)
                                  : first.error + "\n";
    if (group.size() == 1) continue;
    std::string same = fmt::format("{} children, the same:", group.size());
    for (const Diagnosis* d : group) same += fmt::format(" {}", d->pid);
    text += wrapped(same, "  ");
  }
  return text;
}

// Diagnoses the whole tree.
int diagnose_tree(const DiagnoseOptions& options) {
  int left_out = 0;
  const std::vector<Diagnosis> tree = diagnose_descendants(options.pid, &left_out);
  if (tree.front().look == nullptr && !tree.front().evidence) throw Error(tree.front().error);
  Json result = Json::array();
  for (const Diagnosis& d : tree) {
    if (!options.json) break;
    result.push_back(d.look != nullptr
                         ? to_json(d, read_python_stacks(d.look->process, d.look->objects))
                         : error_json(d));
  }
  const auto denied = std::find_if(tree.begin(), tree.end(),
                                   [](const Diagnosis& d) { return d.obstacle.has_value(); });
  if (options.json) {
    print_json(result);
  } else {
    print_text(verdicts(tree) + (denied != tree.end() ? grants(*denied->obstacle) : ""));
  }
  const int status = exit_status(tree, left_out);
  if (status != 1 && denied != tree.end()) throw Error(denied->error);
  return status;
}

// Bounds the time that a core may take which was made to harm its reader, or the files that it
// names.
void limit_seconds(unsigned seconds) {
  signal(SIGALRM, [](int) {
    constexpr char kMessage[] = "forksafe: the core takes too long to read: it is damaged\n";
    if (write(STDERR_FILENO, kMessage, sizeof kMessage - 1) < 0) _exit(2);
    _exit(2);
  });
  alarm(seconds);
}

int diagnose_file(const DiagnoseOptions& options) {
  limit_seconds(60);
  const Diagnosis d = diagnose_core(*options.core);
  if (options.json) {
    print_json(Json::array({to_json(d, {})}));
  } else {
    print_text(verdict(d) + stacks(d, {}));
  }
  return d.stuck ? 1 : d.unknown ? 2 : 0;
}

}  // namespace

int diagnose(const DiagnoseOptions& options) {
  if (options.core) return diagnose_file(options);
  if (options.pid == getpid()) {
    throw Error(fmt::format("process {}: this is forksafe itself: give another id", options.pid));
  }
  return options.children ? diagnose_tree(options) : diagnose_one(options);
}

}  // namespace forksafe::cli
