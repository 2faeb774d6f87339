// SPDX-License-Identifier: Apache-2.0
#include "process/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/words.h"
#include "process/permission.h"
#include "process/process.h"
#include "process/target.h"

namespace forksafe::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr long kOptions = PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                          PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT;

// Ignores SIGINT and SIGQUIT, which are for the command, as system(3) does. With `wake_up`, a timer
// interrupts waitpid ten times a second.
class TracerSignals {
 public:
  explicit TracerSignals(bool wake_up) {
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    struct sigaction nothing = {};
    nothing.sa_handler = [](int) {};
    sigaction(SIGINT, &ignore, &interrupt_);
    sigaction(SIGQUIT, &ignore, &quit_);
    sigaction(SIGALRM, &nothing, &alarm_);
    const itimerval tenth = {{0, 100 * 1000}, {0, 100 * 1000}};
    if (wake_up) setitimer(ITIMER_REAL, &tenth, nullptr);
  }
  ~TracerSignals() {
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGQUIT, &quit_, nullptr);
    sigaction(SIGALRM, &alarm_, nullptr);
  }
  TracerSignals(const TracerSignals&) = delete;
  TracerSignals& operator=(const TracerSignals&) = delete;

 private:
  struct sigaction interrupt_ = {};
  struct sigaction quit_ = {};
  struct sigaction alarm_ = {};
};

// The child waits until it is traced, and then executes the command.
[[noreturn]] void become(const std::vector<std::string>& command, int go) {
  char byte;
  if (read(go, &byte, 1) != 1) _exit(126);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  execvp(command[0].c_str(), as_argv(command).data());
  _exit(exec_status(errno));
}

// Waits until a thread stops and returns its id. 0: no process is left; -1: the time is over.
pid_t wait_for_stop(int* status, Clock::time_point deadline) {
  for (;;) {
    const pid_t tid = waitpid(-1, status, __WALL);
    if (tid > 0) return tid;
    if (errno == ECHILD) return 0;
    if (Clock::now() > deadline) return -1;
  }
}

// A killed process ends within milliseconds, unless the kernel holds it (a dead network disk).
constexpr auto kEndPatience = std::chrono::seconds(5);

// Kills all traced processes, which are all that were started. Each thread of a killed process
// stops once more, at its exit, and no signal wakes it there: it must be continued. Processes that
// are left when the patience ends are killed by the kernel when this process ends
// (PTRACE_O_EXITKILL).
void end_all(const std::set<pid_t>& threads) {
  for (const pid_t tid : threads) {
    kill(tid, SIGKILL);
    ptrace(PTRACE_CONT, tid, nullptr, nullptr);
  }
  const auto deadline = Clock::now() + kEndPatience;
  for (;;) {
    int status = 0;
    const pid_t tid = waitpid(-1, &status, __WALL | WNOHANG);
    if (tid < 0 && errno != EINTR) return;
    if (tid > 0 && WIFSTOPPED(status)) {
      kill(tid, SIGKILL);
      ptrace(PTRACE_CONT, tid, nullptr, nullptr);
    }
    if (tid > 0) continue;
    if (Clock::now() > deadline) break;
    usleep(1000);
  }
  fmt::print(stderr,
             "forksafe: a process of the command has not ended {} s after it was killed: forksafe "
             "no longer waits for it\n",
             kEndPatience.count());
}

}  // namespace

Traced trace(const std::vector<std::string>& command, double timeout_seconds,
             const std::function<bool(pid_t pid, Moment moment)>& look) {
  find_program(find_command(command[0]));  // throws what a shell says if it can't be run
  int go[2];
  if (pipe2(go, O_CLOEXEC) != 0) {
    throw Error(fmt::format("{}: {}", command[0], strerror(errno)));
  }
  const pid_t leader = fork();
  if (leader == 0) become(command, go[0]);
  const TracerSignals signals(timeout_seconds > 0);
  close(go[0]);
  if (leader < 0 || ptrace(PTRACE_SEIZE, leader, nullptr, kOptions) != 0) {
    const int error = errno;
    ProcessStatus status;
    const bool forbidden = error == EPERM && read_status(leader, &status);
    const std::string why =
        forbidden ? describe(find_obstacle(read_access(status), leader)) : strerror(error);
    if (leader > 0) end_all({leader});
    throw Error(fmt::format("{}: it can't be traced: {}", command[0], why));
  }
  const bool told = write(go[1], "g", 1) == 1;
  close(go[1]);
  Traced result;
  std::set<pid_t> threads = {leader};
  const auto deadline = timeout_seconds > 0
                            ? Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                 std::chrono::duration<double>(timeout_seconds))
                            : Clock::time_point::max();
  bool go_on = told;
  while (go_on) {
    int status = 0;
    const pid_t tid = wait_for_stop(&status, deadline);
    if (tid == 0) return result;
    if (tid < 0) {
      look(leader, Moment::kTimeout);
      break;
    }
    if (!WIFSTOPPED(status)) {
      threads.erase(tid);
      if (tid == leader) result.status = status;
      continue;
    }
    threads.insert(tid);
    long signal = 0;
    bool listen = false;
    switch (status >> 16) {
      case 0: signal = WSTOPSIG(status); break;
      case PTRACE_EVENT_STOP:
        // A new thread; or a signal has stopped the process, which must stay stopped.
        listen = WSTOPSIG(status) != SIGTRAP;
        break;
      case PTRACE_EVENT_FORK: {
        ProcessStatus of_thread;
        if (read_status(tid, &of_thread)) go_on = look(of_thread.group_leader, Moment::kFork);
        break;
      }
      case PTRACE_EVENT_EXIT: {
        // The main thread ends with its process.
        ProcessStatus of_thread;
        if (read_status(tid, &of_thread) && of_thread.group_leader == tid) {
          go_on = look(tid, Moment::kExit);
        }
        break;
      }
      case PTRACE_EVENT_EXEC: {
        // A thread that is not the main thread gets the main thread's id. Its old id may be reused.
        unsigned long former = 0;
        ptrace(PTRACE_GETEVENTMSG, tid, nullptr, &former);
        if (static_cast<pid_t>(former) != tid) threads.erase(static_cast<pid_t>(former));
        break;
      }
      default: break;
    }
    if (!go_on) break;
    ptrace(listen ? PTRACE_LISTEN : PTRACE_CONT, tid, nullptr, reinterpret_cast<void*>(signal));
    if (Clock::now() > deadline) {
      look(leader, Moment::kTimeout);
      break;
    }
  }
  result.cut_short = true;
  end_all(threads);
  return result;
}

}  // namespace forksafe::cli
