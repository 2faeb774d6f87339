// SPDX-License-Identifier: Apache-2.0
#include "commands/check.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/library.h"
#include "base/terminal.h"
#include "base/words.h"
#include "process/trace.h"
#include "verdicts/diagnosis.h"
#include "verdicts/proof.h"
#include "verdicts/runtime_report.h"

namespace forksafe::cli {
namespace {

using Json = nlohmann::ordered_json;

// What is known about a fork, and the result of trying it.
struct Answer {
  Fork known;
  std::optional<Proof> proof;

  bool failed() const {
    return proof && proof->end != Proof::End::kPassed && proof->end != Proof::End::kNotProven;
  }
  // If the two differ, the worse one counts: a hang may happen although the trial did not show it.
  bool safe() const { return known.safe && !failed(); }
};

struct RuntimeAnswers {
  const ThreadRuntime* runtime;
  Answer idle, in_flight, idle_guarded, in_flight_guarded;
};

// The library that a program calls to compute. For MKL that is not libmkl_core, by which MKL is
// recognised. Null for a runtime that can't be loaded by itself.
const Object* callable(const ThreadRuntime& runtime, const Objects& objects) {
  if (runtime.linked_in) return nullptr;
  if (runtime.kind != Kind::kMkl) return runtime.object;
  for (const auto& object : objects) {
    if (object->name().rfind("libmkl_", 0) == 0 && object->defines("dgemm_")) return object.get();
  }
  return nullptr;
}

// The libraries that the process has loaded for `object`, in an order in which they can be loaded.
std::vector<std::string> dependencies_of(const ThreadRuntime& runtime, const Object* object,
                                         const Objects& objects) {
  std::vector<std::string> result;
  std::set<const Object*> seen = {object};
  const std::function<void(const Object*)> visit = [&](const Object* at) {
    at->image().each_needed([&](const char* name) {
      for (const auto& other : objects) {
        const char* soname = other->image().soname();
        const bool matches =
            other->name() == name || (soname != nullptr && soname == std::string(name));
        if (!matches || is_c_library(*other) || !seen.insert(other.get()).second) continue;
        visit(other.get());
        result.push_back(other->path());
      }
    });
  };
  // A preloaded OpenMP runtime comes before the one that the object names.
  if (runtime.openmp != nullptr && seen.insert(runtime.openmp).second) {
    result.push_back(runtime.openmp->path());
  }
  visit(object);
  return result;
}

// The variables that a trial has from the process: how many threads a runtime uses, where libraries
// are.
constexpr const char* kTrialVariables[] = {
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS", "MKL_THREADING_LAYER",  "LD_LIBRARY_PATH"};

// A look at a process, with everything that can't be read any more when the process has ended.
struct Subject {
  Subject(pid_t pid, const char* moment, bool prove);

  Look look;
  std::string situation;  // in words
  std::string no_proof;   // why no fork is tried; empty if forks can be tried
};

// A trial runs the code of the process's libraries. Do that only for a process of this user.
std::string why_no_proof(const Process& process, bool prove) {
  if (!prove) return "--no-proof was given";
  if (process.status().user != geteuid()) return "the process is another user's";
  struct stat own = {};
  struct stat its = {};
  if (stat("/", &own) != 0 || stat((process.root() + "/").c_str(), &its) != 0 ||
      own.st_dev != its.st_dev || own.st_ino != its.st_ino) {
    return "the process has another root folder (a container?)";
  }
  return "";
}

std::string situation_of(const Look& look, const char* moment) {
  size_t inside = 0;
  bool in_fork = false;
  for (const Wait& wait : find_waits(look)) {
    inside += wait.is_worker ? 0 : 1;
    in_fork = in_fork || wait.in_fork;
  }
  const size_t threads = look.stacks.size();
  std::string text = fmt::format("{} it had {} thread{}", moment, threads, threads == 1 ? "" : "s");
  if (in_fork) return text + ", one of them in fork(), in a runtime's handler.";
  if (inside > 0) text += fmt::format(", {} of them inside a call of a runtime", inside);
  return text + ".";
}

Subject::Subject(pid_t pid, const char* moment, bool prove)
    : look(pid),
      situation(situation_of(look, moment)),
      no_proof(why_no_proof(look.process, prove)) {}

// Sets KMP_INIT_AT_FORK for a trial: as it is in the process, or as it would be under forksafe.
void set_fork_care(const ThreadRuntime& runtime, const Process& process, bool under_forksafe) {
  if (runtime.fork_care_off.empty() || (under_forksafe && fork_care_setting(process) == "")) {
    setenv("KMP_INIT_AT_FORK", "TRUE", 1);
  } else {
    setenv("KMP_INIT_AT_FORK", runtime.fork_care_off.c_str(), 1);
  }
}

RuntimeAnswers answer(const ThreadRuntime& runtime, const Look& look, bool prove_it) {
  RuntimeAnswers answers = {&runtime,
                            {runtime.idle, {}},
                            {runtime.in_flight, {}},
                            {runtime.idle_guarded, {}},
                            {runtime.in_flight_guarded, {}}};
  const Object* object = callable(runtime, look.objects);
  if (!prove_it || object == nullptr) return answers;
  const std::vector<std::string> dependencies = dependencies_of(runtime, object, look.objects);
  const auto attempt = [&](Answer* result, Situation situation, const std::string& preload) {
    set_fork_care(runtime, look.process, !preload.empty());
    result->proof = prove(probe_path(), object->path(), dependencies, situation, preload);
  };
  attempt(&answers.idle, Situation::kIdle, "");
  attempt(&answers.in_flight, Situation::kInFlight, "");
  attempt(&answers.idle_guarded, Situation::kIdle, library_path());
  attempt(&answers.in_flight_guarded, Situation::kInFlight, library_path());
  return answers;
}

std::string words(const Answer& answer) {
  std::string text =
      paint(answer.safe() ? "safe" : "not safe", answer.safe() ? Colour::kGreen : Colour::kRed);
  if (!answer.proof) return text + ": " + answer.known.text;
  const Proof& proof = *answer.proof;
  switch (proof.end) {
    case Proof::End::kPassed:
      if (answer.known.safe) {
        return text + fmt::format(": {} (tried: {})", answer.known.text, proof.detail);
      }
      return text + fmt::format(": {} (not seen this time: {})", answer.known.text, proof.detail);
    case Proof::End::kNotProven:
      return text + fmt::format(": {} (not tried: {})", answer.known.text, proof.detail);
    default:
      if (answer.known.safe) return text + fmt::format(": tried, and {}", proof.detail);
      return text + fmt::format(": {} (tried: {})", answer.known.text, proof.detail);
  }
}

Json to_json(const Answer& answer) {
  Json result = {{"safe", answer.safe()}, {"text", answer.known.text}, {"tried", Json()}};
  if (!answer.proof) return result;
  static const char* const kEnds[] = {"passed", "hung", "crashed", "inexact", "not proven"};
  result["tried"] = {{"result", kEnds[static_cast<int>(answer.proof->end)]},
                     {"forks", answer.proof->forks},
                     {"seconds", answer.proof->seconds},
                     {"text", answer.proof->detail}};
  return result;
}

// The threads that a child may miss and the libraries that can't be read, for a sentence.
std::string what_is_unknown(const Look& look) {
  std::string text;
  for (const std::string& path : look.objects.unread()) {
    text += (text.empty() ? "" : " and ") + path +
            ", whose file was removed or replaced after it was loaded";
  }
  for (const OtherThreads& other : look.others) {
    if (other.start_again) continue;
    text += (text.empty() ? "" : " and ") + describe(other);
  }
  return text;
}

int print_report(const CheckOptions& options, const Subject& subject) {
  const Look& look = subject.look;
  const bool prove_it = subject.no_proof.empty() && !look.runtimes.empty();
  if (prove_it) {
    check_library(library_path());
    for (const char* name : kTrialVariables) {
      const std::string value = look.process.environment(name);
      if (value.empty()) {
        unsetenv(name);
      } else {
        setenv(name, value.c_str(), 1);
      }
    }
  }
  std::vector<RuntimeAnswers> all;
  bool safe = true;
  bool safe_guarded = true;
  bool guarded = true;
  const ThreadRuntime* incurable = nullptr;
  bool fork_care_off = false;
  for (const ThreadRuntime& runtime : look.runtimes) {
    all.push_back(answer(runtime, look, prove_it));
    const RuntimeAnswers& a = all.back();
    const bool by_itself = a.idle.safe() && a.in_flight.safe();
    safe = safe && by_itself;
    safe_guarded = safe_guarded && a.idle_guarded.safe() && a.in_flight_guarded.safe();
    guarded = guarded && (by_itself || runtime.guarded);
    fork_care_off = fork_care_off || !runtime.fork_care_off.empty();
    if (!by_itself && runtime.left_alone) incurable = &runtime;
  }
  const bool safe_now = safe || (guarded && safe_guarded);
  const std::string unknown = what_is_unknown(look);
  const bool can_tell = !safe_now || unknown.empty();
  const int status = !safe_now ? 1 : can_tell ? 0 : 2;

  std::string verdict;
  if (!can_tell) {
    verdict = "fork may hang here: forksafe does not know " + unknown;
  } else if (look.runtimes.empty()) {
    verdict =
        "no BLAS or OpenMP runtime that forksafe knows is loaded, so fork is safe in this respect";
  } else if (safe) {
    verdict = "fork is safe here";
  } else if (safe_now) {
    verdict = "fork is safe here, under forksafe";
  } else if (incurable != nullptr) {
    verdict = fmt::format(
        "fork is not safe here, and forksafe can't cure it: {} is linked into {}: link it to {} "
        "instead",
        incurable->name(), incurable->object->name(), shared_library(*incurable));
  } else {
    verdict = guarded ? "fork is not safe here, even under forksafe" : "fork is not safe here";
  }
  std::string cure;
  const std::optional<std::string> setting =
      fork_care_off ? fork_care_setting(look.process) : std::optional<std::string>("");
  if (!safe_now && !guarded && incurable == nullptr && setting) {
    cure = *setting + "forksafe " + shell_line(look.process.arguments());
  }

  if (options.json) {
    Json result = {{"safe", can_tell ? Json(safe_now) : Json()},
                   {"text", verdict},
                   {"situation", subject.situation},
                   {"pid", look.process.pid()},
                   {"command", look.process.arguments()},
                   {"cure", cure.empty() ? Json() : Json(cure)},
                   {"not_tried", prove_it ? Json() : Json(subject.no_proof)}};
    result["other_threads"] = other_threads_json(look.others);
    result["runtimes"] = runtime_json(look.runtimes);
    for (size_t i = 0; i < all.size(); ++i) {
      Json& entry = result["runtimes"][i];
      entry["fork_idle"] = to_json(all[i].idle);
      entry["fork_in_flight"] = to_json(all[i].in_flight);
      entry["fork_idle_guarded"] = to_json(all[i].idle_guarded);
      entry["fork_in_flight_guarded"] = to_json(all[i].in_flight_guarded);
    }
    print_json(result);
    return status;
  }

  std::string text =
      fmt::format("{}: {}.\n{}\n", look.process.name(),
                  paint(verdict, status == 0 ? Colour::kGreen : Colour::kRed), subject.situation);
  const std::string others = other_threads_note(look.others);
  if (!others.empty()) text += "\n" + others;
  for (const RuntimeAnswers& a : all) {
    text += fmt::format("\n{}, {}\n", paint(describe(*a.runtime), Colour::kBold),
                        a.runtime->object->path());
    text += fmt::format("  with no call in flight      {}\n", words(a.idle));
    text += fmt::format("  with calls in other threads {}\n", words(a.in_flight));
    if (a.idle.safe() && a.in_flight.safe()) continue;
    text += fmt::format("  under forksafe: no call     {}\n", words(a.idle_guarded));
    text += fmt::format("                  calls       {}\n", words(a.in_flight_guarded));
  }
  if (!prove_it && !look.runtimes.empty()) {
    text += fmt::format("\nNothing was tried: {}.\n", subject.no_proof);
  }
  const std::string note = fork_care_note(look.process, look.runtimes);
  if (!note.empty()) text += "\n" + note;
  if (!cure.empty()) text += fmt::format("\nRun it as:  {}\n", cure);
  print_text(text);
  return status;
}

}  // namespace

int check(const CheckOptions& options) {
  if (options.pid) {
    return print_report(options, Subject(*options.pid, "When it was looked at,", options.prove));
  }

  std::unique_ptr<Subject> subject;
  std::string trouble;
  bool is_late = false;
  // Takes the last of several programs that has a runtime; if none has, the first one that has
  // threads that belong to none. True if this one has a runtime.
  const auto take = [&](pid_t pid, const char* moment) {
    try {
      auto taken = std::make_unique<Subject>(pid, moment, options.prove);
      const bool found = !taken->look.runtimes.empty();
      const bool first = subject == nullptr;
      const bool first_threads = !first && subject->look.runtimes.empty() &&
                                 subject->look.others.empty() && !taken->look.others.empty();
      if (found || first || first_threads) subject = std::move(taken);
      return found;
    } catch (const Error& e) {
      trouble = e.what();
      return false;
    }
  };
  const Traced traced =
      trace(options.command, options.timeout_seconds, [&](pid_t pid, Moment moment) {
        ProcessStatus status;
        switch (moment) {
          case Moment::kFork: return !take(pid, "At its first fork");
          case Moment::kExit:
            // The process has not forked. A forked child was reported at its fork.
            if (read_status(pid, &status) && !status.forked)
              take(pid, "At its end, without a fork,");
            return true;
          case Moment::kTimeout:
            is_late = true;
            for (const pid_t process : process_tree(pid)) {
              if (take(process, "When its time was over,")) return false;
            }
            return false;
        }
        return true;
      });
  if (subject == nullptr) {
    throw Error("check: " + (trouble.empty() ? "the command could not be inspected" : trouble));
  }
  // It may load one later. If it has threads that forksafe does not know, the report says so.
  if (is_late && subject->look.runtimes.empty() && what_is_unknown(subject->look).empty()) {
    throw Error(
        fmt::format("check: the command had loaded no BLAS or OpenMP runtime after {:g} s: raise "
                    "--timeout",
                    options.timeout_seconds));
  }
  // A command that failed may have ended before it loaded a runtime.
  if (!traced.cut_short && traced.status != 0) {
    const std::string end = WIFSIGNALED(traced.status)
                                ? fmt::format("was ended by signal {}", WTERMSIG(traced.status))
                                : fmt::format("ended with status {}", WEXITSTATUS(traced.status));
    if (subject->look.runtimes.empty()) {
      throw Error(
          fmt::format("check: the command {} before it had loaded a BLAS or OpenMP runtime", end));
    }
    fmt::print(stderr, "forksafe: check: the command {}\n", end);
  }
  return print_report(options, *subject);
}

}  // namespace forksafe::cli
