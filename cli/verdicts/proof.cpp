// SPDX-License-Identifier: Apache-2.0
//
// How a hang is told from a slow machine: by what the process does while it does not answer.
// - It hangs if all its threads sleep for the whole patience: it waits for a thread that does not
//   exist.
// - It hangs if its threads have used, on average, as much CPU time as the patience: it spins. (A
//   child computes for milliseconds only.)
// - It is only slow if it wants a processor and does not get one. While a child does not answer,
//   its parent is stopped, so that the parent's threads don't compete with it.
#include "verdicts/proof.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/library.h"
#include "base/words.h"
#include "process/stacks.h"

namespace forksafe::cli {
namespace {

using Clock = std::chrono::steady_clock;

// The largest numbers of forks: the probe stops after two seconds. Without the library, a build
// that hangs when idle hangs at the first fork. With calls in flight, OpenBLAS hangs within a few
// forks, and BLIS on pthreads within some hundreds.
constexpr int kIdleForks = 20;
constexpr int kInFlightForks = 1000;

// Seconds. With the library, a fork may wait for calls in flight, which is not a hang.
constexpr double kPatienceWithout = 3;
constexpr double kPatienceWith = 15;
constexpr double kNeverAnswers = 30;  // then it hangs in any case

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// ---- The environment of the probe.

// Two threads are enough for a hang. With more, the threads of four callers would spin for few
// processors, which is hard to tell from a hang.
bool sets_threads(const std::string& name) {
  for (const char* n : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS",
                        "BLIS_NUM_THREADS", "MKL_NUM_THREADS"}) {
    if (name == n) return true;
  }
  return false;
}

std::vector<std::string> environment_with(const std::string& preload) {
  std::vector<std::string> environment;
  std::string inherited, search;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string variable = *e;
    const std::string name = variable.substr(0, variable.find('='));
    if (name == "LD_PRELOAD") {
      inherited = variable.substr(name.size() + 1);
    } else if (name == "LD_LIBRARY_PATH") {
      search = variable.substr(name.size() + 1);
    } else if (sets_threads(name) && atoi(variable.c_str() + name.size() + 1) > 2) {
      environment.push_back(name + "=2");
    } else if (name != "FORKSAFE" &&
               name != "FORKSAFE_LOG") {  // the log belongs to the user's program
      environment.push_back(variable);
    }
  }
  const std::string list = edit_preload(inherited, preload);
  if (!list.empty()) environment.push_back("LD_PRELOAD=" + list);
  search = edit_library_path(search, preload);
  if (!search.empty()) environment.push_back("LD_LIBRARY_PATH=" + search);
  return environment;
}

// ---- What a process does, read from /proc.

struct Activity {
  pid_t pid = 0;  // 0: no such process
  int threads = 0;
  bool sleeps = true;  // no thread runs or waits for a processor
  double cpu_seconds = 0;
};

// The fields of a stat file from the third on; empty if the process has ended.
std::vector<std::string> read_stat(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  std::vector<std::string> fields;
  std::istringstream rest(line.substr(line.rfind(')') + 1));
  for (std::string field; rest >> field;) fields.push_back(field);
  return fields;
}

std::vector<std::string> numbers_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return names;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') names.emplace_back(entry->d_name);
  }
  closedir(directory);
  return names;
}

// The process in the group of `leader` whose answer is awaited: the live child of the leader, or
// the leader itself if it has none.
Activity awaited(pid_t leader) {
  enum { kState = 0, kGroup = 2, kUserTicks = 11, kSystemTicks = 12, kFields };
  Activity found;
  for (const std::string& number : numbers_in("/proc")) {
    const auto stat = read_stat("/proc/" + number + "/stat");
    if (stat.size() < kFields || stat[kGroup] != std::to_string(leader) || stat[kState] == "Z" ||
        stat[kState] == "X") {
      continue;
    }
    const pid_t pid = std::stoi(number);
    if (pid == leader && found.pid != 0) continue;
    found.pid = pid;
    found.cpu_seconds = (std::stod(stat[kUserTicks]) + std::stod(stat[kSystemTicks])) /
                        static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  const std::string tasks = "/proc/" + std::to_string(found.pid) + "/task";
  for (const std::string& number : numbers_in(tasks)) {
    const auto stat = read_stat(std::string(tasks).append("/").append(number).append("/stat"));
    if (!stat.empty() && stat[kState] != "S") found.sleeps = false;
    ++found.threads;
  }
  return found;
}

// Watches for how long the awaited process has given no answer, and what it does meanwhile.
class HangWatch {
 public:
  HangWatch(pid_t leader, double patience) : leader_(leader), patience_(patience) {}

  void answered() {
    last_answer_ = asleep_since_ = Clock::now();
    suspect_ = {};
    let_leader_run();
  }

  bool hangs() {
    if (seconds_since(last_answer_) < patience_ / 10) return false;  // too early
    const Activity now = awaited(leader_);
    if (now.pid != suspect_.pid) {
      suspect_ = now;
      asleep_since_ = Clock::now();
      // A child that has ended is reaped by the leader.
      if (!is_child()) {
        let_leader_run();
      } else if (!leader_is_stopped_) {
        leader_is_stopped_ = kill(leader_, SIGSTOP) == 0;
      }
    }
    if (!now.sleeps) asleep_since_ = Clock::now();
    const double quiet = seconds_since(last_answer_);
    const bool spins = now.cpu_seconds - suspect_.cpu_seconds > patience_ / 3 * now.threads;
    return seconds_since(asleep_since_) > patience_ || (quiet > patience_ && spins) ||
           quiet > kNeverAnswers;
  }

  bool is_child() const { return suspect_.pid != leader_; }

 private:
  void let_leader_run() {
    if (leader_is_stopped_) kill(leader_, SIGCONT);
    leader_is_stopped_ = false;
  }

  pid_t leader_;
  double patience_;
  bool leader_is_stopped_ = false;
  Clock::time_point last_answer_ = Clock::now();
  Clock::time_point asleep_since_ = Clock::now();
  Activity suspect_;  // as first seen
};

// ---- The scratch process.

// A file in memory for the output of the probe. Unlike a pipe, it never fills up.
class Capture {
 public:
  Capture() : file_(memfd_create("forksafe-probe", MFD_CLOEXEC)) {
    if (file_ < 0) throw Error(std::string("memfd_create: ") + strerror(errno));
  }
  ~Capture() { close(file_); }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  int file() const { return file_; }
  std::string text() const {
    struct stat status = {};
    fstat(file_, &status);
    std::string text(static_cast<size_t>(status.st_size), '\0');
    if (pread(file_, &text[0], text.size(), 0) < 0) text.clear();
    return text;
  }

 private:
  int file_;
};

// While an object of this class exists, this process adopts orphans and can reap them.
class Reaping {
 public:
  Reaping() : child_handler_(signal(SIGCHLD, SIG_DFL)) {
    prctl(PR_GET_CHILD_SUBREAPER, &was_subreaper_);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
  }
  ~Reaping() {
    prctl(PR_SET_CHILD_SUBREAPER, was_subreaper_);
    signal(SIGCHLD, child_handler_);
  }
  Reaping(const Reaping&) = delete;
  Reaping& operator=(const Reaping&) = delete;

 private:
  sighandler_t child_handler_;
  int was_subreaper_ = 0;
};

constexpr int kCannotRun = 127;

[[noreturn]] void become(char** arguments, char** environment, int output, int errors,
                         pid_t parent) {
  setsid();
  // In its own session, the probe does not get Ctrl-C. It ends its own children in the same way.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kCannotRun);
  // With 1 instead of 0, the kernel does not start a core_pattern that is a pipe either.
  rlimit core = {};
  getrlimit(RLIMIT_CORE, &core);
  core.rlim_cur = std::min<rlim_t>(1, core.rlim_max);
  setrlimit(RLIMIT_CORE, &core);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(errors, STDERR_FILENO);
  execve(arguments[0], arguments, environment);
  dprintf(STDERR_FILENO, "forksafe-probe: %s\n", strerror(errno));
  _exit(kCannotRun);
}

// Leaves the zombie, so that its id is not reused before the whole group has been ended.
bool has_ended(pid_t leader, siginfo_t* how) {
  *how = {};
  return waitid(P_PID, static_cast<id_t>(leader), how, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         how->si_pid == leader;
}

void end_group(pid_t leader) {
  kill(-leader, SIGKILL);
  // When its parent dies, a child becomes ours.
  while (waitpid(-leader, nullptr, 0) > 0 || errno == EINTR) {
  }
}

// The last message of the probe, without the program's name.
std::string last_message(const std::string& text) {
  static constexpr char kPrefix[] = "forksafe-probe: ";
  const size_t begin = text.rfind(kPrefix);
  if (begin == std::string::npos) return "";
  const size_t from = begin + sizeof kPrefix - 1;
  return text.substr(from, text.find('\n', from) - from);
}

std::string after(int forks) {
  if (forks == 0) return " at the first fork";
  return " after " + std::to_string(forks) + (forks == 1 ? " fork" : " forks");
}

// Sets the result from how the probe ended (its exit statuses are in probe.cpp).
void judge(const siginfo_t& how, bool forked, const std::string& message, Proof* proof) {
  using End = Proof::End;
  if (how.si_code != CLD_EXITED) {
    proof->end = forked ? End::kCrashed : End::kNotProven;
    proof->detail = std::string("the parent crashed") +
                    (forked ? after(proof->forks) : " before the first fork") + ": " +
                    strsignal(how.si_status);
    return;
  }
  switch (how.si_status) {
    case 0:
      proof->end = End::kPassed;
      proof->detail = "exact in " + std::to_string(proof->forks) + " children";
      return;
    case 1: proof->end = forked ? End::kInexact : End::kNotProven; break;
    case 4: proof->end = End::kCrashed; break;
    case 2:
    case 3: proof->end = End::kNotProven; break;
    default:
      proof->end = forked ? End::kCrashed : End::kNotProven;
      proof->detail = "the parent ended itself with status " + std::to_string(how.si_status);
      return;
  }
  proof->detail = message;
  if (forked) proof->detail += after(proof->forks);
}

}  // namespace

Proof prove(const std::string& probe, const std::string& library,
            const std::vector<std::string>& dependencies, Situation situation,
            const std::string& preload, double at_most) {
  const bool idle = situation == Situation::kIdle;
  std::vector<std::string> command = {probe, idle ? "idle" : "in-flight",
                                      std::to_string(idle ? kIdleForks : kInFlightForks), library};
  command.insert(command.end(), dependencies.begin(), dependencies.end());
  const std::vector<std::string> variables = environment_with(preload);
  std::vector<char*> arguments = as_argv(command);
  std::vector<char*> environment = as_argv(variables);
  const Capture output;
  const Capture errors;
  const Reaping reaping;

  const auto start = Clock::now();
  const pid_t self = getpid();
  const pid_t leader = fork();
  if (leader < 0) throw Error(std::string("fork: ") + strerror(errno));
  if (leader == 0) {
    become(arguments.data(), environment.data(), output.file(), errors.file(), self);
  }

  HangWatch watch(leader, preload.empty() ? kPatienceWithout : kPatienceWith);
  siginfo_t how;
  size_t answers = 0;
  bool ended = false;
  bool hung = false;
  while (!(ended = has_ended(leader, &how)) && !hung && seconds_since(start) < at_most) {
    sleep_after_look(std::chrono::milliseconds(20));
    const size_t size = output.text().size();
    if (size != answers) watch.answered();
    answers = size;
    hung = watch.hangs();
  }
  end_group(leader);

  const std::string text = output.text();
  const std::string message = last_message(errors.text());
  if (ended && how.si_code == CLD_EXITED && how.si_status == kCannotRun) {
    throw Error(probe + ", which tries forks, can't run: " + message +
                "; install forksafe again, or use --no-proof");
  }
  Proof proof = {};
  proof.seconds = seconds_since(start);
  proof.forks = static_cast<int>(std::count(text.begin(), text.end(), '.'));
  const bool forked = text.find(':') != std::string::npos;
  if (ended) {
    judge(how, forked, message, &proof);
  } else if (!hung) {
    proof.end = Proof::End::kNotProven;
    proof.detail = "too slow: " + std::to_string(proof.forks) + " children answered well in " +
                   std::to_string(static_cast<int>(at_most)) + " s";
  } else if (!forked) {
    proof.end = Proof::End::kNotProven;
    proof.detail = "it hung before the first fork";
  } else {
    proof.end = Proof::End::kHung;
    proof.detail = (watch.is_child() ? "a child hung" : "the parent hung") + after(proof.forks);
  }
  return proof;
}

}  // namespace forksafe::cli
