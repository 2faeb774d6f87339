// SPDX-License-Identifier: Apache-2.0
// What a program can see of itself in fork handlers, in the parent and in the child is the same as
// without the library. Signal mask and dispositions, errno, alternate stack, cancel state, open
// descriptors, threads, rounding mode, timers, environment, umask.
#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <algorithm>
#include <string>
#include <vector>

#include "harm.h"

extern char** environ;

namespace {

constexpr int kForks = 20;

char alternate_stack[64 * 1024];

std::string open_descriptors() {
  std::vector<int> numbers;
  DIR* folder = opendir("/proc/self/fd");
  harm::expect(folder != nullptr, "/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    const int number = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && number != dirfd(folder)) numbers.push_back(number);
  }
  closedir(folder);
  std::sort(numbers.begin(), numbers.end());
  std::string text;
  for (const int number : numbers) {
    text += std::to_string(number) + (fcntl(number, F_GETFD) != 0 ? "x " : " ");
  }
  return text;
}

int threads() {
  int count = 0;
  DIR* folder = opendir("/proc/self/task");
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.' ? 1 : 0;
  closedir(folder);
  return count;
}

std::string signals() {
  std::string text;
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  for (int s = 1; s < 65; ++s) {
    struct sigaction action = {};
    const bool known = sigaction(s, nullptr, &action) == 0;
    text += sigismember(&mask, s) == 1 ? 'b' : '-';
    if (known && action.sa_handler != SIG_DFL) text += std::to_string(s);
  }
  return text;
}

// Describes the state in lines of text. Fork handlers call it too, and must see the same state.
std::string look(int seen_errno) {
  int cancel_state = -1;
  int cancel_type = -1;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
  pthread_setcancelstate(cancel_state, nullptr);
  pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &cancel_type);
  pthread_setcanceltype(cancel_type, nullptr);
  stack_t stack = {};
  sigaltstack(nullptr, &stack);
  itimerval alarm_timer = {};
  getitimer(ITIMER_REAL, &alarm_timer);
  itimerval virtual_timer = {};
  getitimer(ITIMER_VIRTUAL, &virtual_timer);
  char name[16] = "";
  prctl(PR_GET_NAME, name);
  const mode_t mask = umask(0);
  umask(mask);
  size_t variables = 0;
  while (environ[variables] != nullptr) ++variables;
  if (getenv("LD_PRELOAD") != nullptr) --variables;
  if (getenv("FORKSAFE_LOG") != nullptr) --variables;
  if (getenv("FORKSAFE_CHILD_THREADS") != nullptr) --variables;
  std::string text = "errno " + std::to_string(seen_errno);
  text += ", cancel " + std::to_string(cancel_state) + std::to_string(cancel_type);
  text += ", stack " + std::to_string(stack.ss_sp == alternate_stack) + " " +
          std::to_string(stack.ss_flags);
  text += ", alarm " + std::to_string(alarm_timer.it_value.tv_sec > 0);
  text += ", virtual timer " + std::to_string(virtual_timer.it_value.tv_sec > 0);
  text += ", rounding " + std::to_string(fegetround());
  text += ", exceptions " + std::to_string(fetestexcept(FE_ALL_EXCEPT));
  text += std::string(", name ") + name + ", umask " + std::to_string(mask);
  text += ", variables " + std::to_string(variables) + ", threads " + std::to_string(threads());
  text += "\n  open " + open_descriptors() + "\n  signals " + signals() + "\n";
  return text;
}

std::string in_prepare, in_parent, in_child;

void look_into(std::string* text) {
  const int seen = errno;
  *text = look(seen);
  errno = seen;
}

void show(const char* where, const std::string& text) {
  const std::string all = std::string(where) + ": " + text;
  if (write(STDOUT_FILENO, all.data(), all.size()) < 0) _exit(4);
}

void fork_and_show(bool in_full) {
  errno = 1234;
  const pid_t child = harm::bounded_fork();
  const int seen = errno;
  if (child == 0) {
    if (in_full) {
      show("prepare handler", in_prepare);
      show("child handler", in_child);
      show("child", look(seen));
    }
    errno = 77;
    const pid_t grandchild = harm::bounded_fork();
    if (grandchild == 0) {
      if (in_full) show("grandchild", look(errno));
      _exit(0);
    }
    harm::reap_well(grandchild);
    _exit(0);
  }
  const std::string now = look(seen);
  harm::reap_well(child);
  if (in_full) {
    show("parent handler", in_parent);
    show("parent", now);
  }
}

void* in_thread(void*) {
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
  fesetround(FE_UPWARD);
  fork_and_show(true);
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 50L * kForks);
  show("start", look(0));
  stack_t stack = {};
  stack.ss_sp = alternate_stack;
  stack.ss_size = sizeof alternate_stack;
  sigaltstack(&stack, nullptr);
  harm::on_signal(SIGUSR2, [](int) {});
  signal(SIGPIPE, SIG_IGN);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigaddset(&mask, SIGRTMIN + 3);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  harm::expect(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 40) >= 0, "F_DUPFD_CLOEXEC");
  harm::expect(dup2(STDOUT_FILENO, 60) == 60, "dup2");
  fesetround(FE_DOWNWARD);
  feraiseexcept(FE_INEXACT | FE_OVERFLOW);
  alarm(1000);
  const itimerval far = {{0, 0}, {1000, 0}};
  setitimer(ITIMER_VIRTUAL, &far, nullptr);
  fork_and_show(true);
  pthread_atfork([] { look_into(&in_prepare); }, [] { look_into(&in_parent); },
                 [] { look_into(&in_child); });
  for (int i = 0; i < kForks * harm::times; ++i) fork_and_show(i < 2);
  pthread_join(harm::start_thread(in_thread), nullptr);
  show("end", look(0));
  return 0;
}
