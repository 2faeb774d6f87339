// SPDX-License-Identifier: Apache-2.0
// fork() fails: errno is the kernel's, and the parent handlers run. When the reason is gone, fork()
// works as before.
//
// Modes: limit (RLIMIT_NPROC, as a user that is not root), seccomp (clone gives EPERM).
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "harm.h"

namespace {

constexpr int kFailures = 300;
constexpr uid_t kNobody = 65534;

std::atomic<int> prepared{0}, continued{0};

void fail_to_fork(int expected) {
  for (int i = 0; i < kFailures * harm::times; ++i) {
    errno = 0;
    harm::expect(harm::bounded_fork() == -1, "fork() succeeded against the limit");
    harm::expect(errno == expected, "errno of a fork that failed");
    harm::expect(prepared == i + 1 && continued == i + 1, "the handlers of a fork that failed");
  }
  prepared = 0;
  continued = 0;
}

void meet_limit() {
  if (geteuid() == 0 && setresuid(kNobody, kNobody, kNobody) != 0) harm::skip("can't leave root");
  rlimit limit;
  getrlimit(RLIMIT_NPROC, &limit);
  const rlim_t before = limit.rlim_cur;
  for (int i = 0; i < 3; ++i) {
    limit.rlim_cur = 1;
    setrlimit(RLIMIT_NPROC, &limit);
    // If the user has one process only, it may still be below the limit here.
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      prepared = 0;
      continued = 0;
      fail_to_fork(EAGAIN);
      limit.rlim_cur = before;
      setrlimit(RLIMIT_NPROC, &limit);
      harm::fork_chain(2);
      _exit(0);
    }
    if (child > 0) harm::reap_well(child);
    prepared = 0;
    continued = 0;
    if (child < 0) fail_to_fork(EAGAIN);
    limit.rlim_cur = before;
    setrlimit(RLIMIT_NPROC, &limit);
    harm::fork_chain(3);
    prepared = 0;
    continued = 0;
  }
}

// clone3 fails as on a kernel that does not have it. glibc then makes threads with clone, so the
// filter allows clone for threads.
void forbid_forks() {
  const sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
#ifdef SYS_clone3
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
#endif
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x00010000),  // CLONE_THREAD
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x00010000, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof filter / sizeof filter[0], const_cast<sock_filter*>(filter)};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    harm::skip("no seccomp");
  }
}

void* fail_in_thread(void*) {
  fail_to_fork(EPERM);
  return nullptr;
}

// A filter can't be removed, so a child installs it.
void meet_filter() {
  const pid_t child = harm::bounded_fork();
  if (child == 0) {
    harm::watch(30);
    forbid_forks();
    prepared = 0;
    continued = 0;
    fail_to_fork(EPERM);
    pthread_join(harm::start_thread(fail_in_thread), nullptr);
    fail_to_fork(EPERM);
    _exit(0);
  }
  const int status = harm::reap(child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == harm::kSkipped) _exit(harm::kSkipped);
  harm::expect(status == 0, "the child whose forks fail");
  harm::fork_chain(3);
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 30L * kFailures);
  pthread_atfork([] { ++prepared; }, [] { ++continued; }, nullptr);
  if (harm::mode_is("limit")) {
    meet_limit();
  } else {
    meet_filter();
  }
  harm::say("%d forks failed as they should", kFailures);
  return 0;
}
