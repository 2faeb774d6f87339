// SPDX-License-Identifier: Apache-2.0
#include "process/as_child.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>

#include "base/error.h"
#include "base/words.h"
#include "process/process.h"
#include "process/stacks.h"
#include "process/target.h"

namespace forksafe::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Blocks all signals but those of a fault, and takes SIGCHLD even if the caller ignores it, until
// restore().
class ChildSignals {
 public:
  ChildSignals() {
    sigfillset(&taken_);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) {
      sigdelset(&taken_, fault);
    }
    struct sigaction usual = {};
    usual.sa_handler = SIG_DFL;
    sigaction(SIGCHLD, &usual, &child_before_);
    sigprocmask(SIG_BLOCK, &taken_, &mask_before_);
  }
  void restore() const {
    sigaction(SIGCHLD, &child_before_, nullptr);
    sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  }
  /// Waits for a signal until `deadline`. 0 if none has come.
  int wait(siginfo_t* info, Clock::time_point deadline) const {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now());
    const long long ns = std::max<long long>(left.count(), 0);
    const timespec patience = {static_cast<time_t>(ns / 1000000000),
                               static_cast<long>(ns % 1000000000)};
    const int signal = sigtimedwait(&taken_, info, &patience);
    return signal > 0 ? signal : 0;
  }

 private:
  sigset_t taken_;
  sigset_t mask_before_;
  struct sigaction child_before_ = {};
};

// Sends a signal that has its default action to this process, and lets it act.
void suffer(int signal) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  raise(signal);
  sigprocmask(SIG_UNBLOCK, &one, nullptr);
  sigprocmask(SIG_BLOCK, &one, nullptr);
}

[[noreturn]] void become(const std::vector<std::string>& command,
                         const std::vector<std::string>& environment, const ChildSignals& signals,
                         pid_t parent, int go, int failure) {
  // The kernel keeps this over the exec, unless the program gets more rights by it.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  char byte;
  if (getppid() != parent || read(go, &byte, 1) != 1) _exit(126);
  signals.restore();
  execvpe(command[0].c_str(), as_argv(command).data(), as_argv(environment).data());
  const int error = errno;
  if (write(failure, &error, sizeof error) < 0) _exit(126);
  _exit(exec_status(error));
}

void close_files() {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null, STDIN_FILENO);
  dup2(null, STDOUT_FILENO);
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return;
  std::vector<int> files;
  while (const dirent* entry = readdir(folder)) files.push_back(atoi(entry->d_name));
  closedir(folder);
  for (const int file : files) {
    if (file > STDERR_FILENO) close(file);
  }
}

bool descends_from(pid_t pid, pid_t ancestor) {
  ProcessStatus status;
  while (pid > 1 && pid != ancestor && read_status(pid, &status)) pid = status.parent;
  return pid == ancestor;
}

// Whether the command has got the signal too: the terminal sends it to the whole process group, and
// the command may send one to its own group. The hangup of a terminal goes to the leader of its
// session alone. SIGPIPE from a write of this process is none of the command's.
bool has_got_it(const siginfo_t& info, pid_t child) {
  if (info.si_code == SI_USER || info.si_code == SI_QUEUE || info.si_code == SI_TKILL) {
    return info.si_pid == getpid() || descends_from(info.si_pid, child);
  }
  switch (info.si_signo) {
    case SIGHUP:
    case SIGCONT: return getsid(0) != getpid();
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGWINCH: return true;
    default: return false;  // such as SIGALRM, from an alarm(2) before our exec
  }
}

void pass_on(const siginfo_t& info, pid_t child) {
  if (has_got_it(info, child)) return;
  if (info.si_code == SI_QUEUE) {
    sigqueue(child, info.si_signo, info.si_value);
  } else {
    kill(child, info.si_signo);
  }
}

// The errno with which the command could not be run, or 0. `may_start` may have left the child to
// stop late.
int wait_for_exec(int failure) {
  pollfd end = {failure, POLLIN, 0};
  while (poll(&end, 1, 20) <= 0) continue_late_threads();
  int error = 0;
  return read(failure, &error, sizeof error) == sizeof error ? error : 0;
}

// Whether this process has to stop with the command, since a shell waits for that. A shell with job
// control has made us a process group on its terminal; the leader of a session is no such group.
// Otherwise nobody might continue this process: who stops the command by its id, as cpulimit does
// with SIGSTOP, continues that alone.
bool is_followed(int stop_status) {
  // What is above the signal's number is an event of ptrace(2): a look stops the child.
  if (stop_status >> 16 != 0 || getsid(0) == getpid()) return false;
  const int terminal = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (terminal < 0) return false;
  const bool in_foreground = tcgetpgrp(terminal) == getpgrp();
  close(terminal);
  switch (WSTOPSIG(stop_status)) {
    case SIGSTOP: return in_foreground;
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU: return true;
    default: return false;  // it has got a signal while it was stopped for a look
  }
}

// Ends as the command has ended.
int end_as(int status) {
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  const int number = WTERMSIG(status);
  prctl(PR_SET_DUMPABLE, 0);  // the command has written the core
  signal(number, SIG_DFL);
  suffer(number);
  return 128 + number;
}

}  // namespace

int run_as_child(const std::vector<std::string>& command,
                 const std::vector<std::string>& environment, double seconds,
                 const std::function<void(pid_t pid)>& may_start,
                 const std::function<bool(pid_t pid)>& look) {
  int go[2];
  int failure[2];
  if (pipe2(go, O_CLOEXEC) != 0 || pipe2(failure, O_CLOEXEC) != 0) {
    throw Error(command[0] + ": " + strerror(errno));
  }
  const pid_t self = getpid();
  const ChildSignals signals;
  const pid_t child = fork();
  if (child < 0) throw Error(std::string("fork: ") + strerror(errno));
  if (child == 0) become(command, environment, signals, self, go[0], failure[1]);
  close(go[0]);
  close(failure[1]);
  try {
    may_start(child);
  } catch (...) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    signals.restore();
    throw;
  }
  const int error = write(go[1], "g", 1) == 1 ? wait_for_exec(failure[0]) : 0;
  if (error != 0) {
    waitpid(child, nullptr, 0);
    signals.restore();
    throw Error(command[0] + ": " + strerror(error), exec_status(error));
  }
  close_files();

  const auto pause = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(std::min(seconds, 1e6)));
  auto next_look = Clock::now() + pause;
  for (;;) {
    siginfo_t info = {};
    const int signal = signals.wait(&info, next_look);
    if (signal != 0 && signal != SIGCHLD) pass_on(info, child);
    continue_late_threads();
    // Also takes the ends of orphans, of which this process is the parent as process 1 of a
    // container, and of threads that a look has stopped.
    int status = 0;
    pid_t changed = 0;
    while ((changed = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
      if (changed != child) continue;
      if (!WIFSTOPPED(status)) return end_as(status);
      if (is_followed(status)) suffer(WSTOPSIG(status));
    }
    if (Clock::now() < next_look) continue;
    bool again = false;
    try {
      again = look(child);
    } catch (const std::exception&) {
      // Such as for want of memory. That must not end the command. The next look may succeed.
    }
    raise(SIGCHLD);  // the look may have taken one (stacks.h)
    next_look = Clock::now() + (again ? Clock::duration::zero() : pause);
  }
}

}  // namespace forksafe::cli
