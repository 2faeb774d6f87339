// SPDX-License-Identifier: Apache-2.0
// Runs a command and makes one system call of LIBRARY fail, once, in the command or a descendant.
//
//   inject LIBRARY - COMMAND...                     no call fails; descriptor 3 gets a list of them
//   inject LIBRARY CALL:SITE:WHO:ERRNO COMMAND...   numbers; the first such call fails
//
// A call is the library's if the first return address on the stack that lies neither in libc nor in
// the dynamic linker lies in LIBRARY. SITE is that address, from the start of the library. WHO is 0
// in the process that was started, and 1 in its descendants. A line of the list is "CALL SITE WHO";
// when a call was made to fail, descriptor 3 gets the line "failed". From then on nothing is
// traced, so that `forksafe diagnose` can look at the processes. The exit status is that of
// COMMAND. x86-64 only.
#include <fcntl.h>
#include <libunwind-ptrace.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

struct Mapping {
  uintptr_t begin, end, base;
  bool ours, libc;
};

struct Tracee {
  bool in_call = false;
  bool failing = false;
  pid_t process = 0;
};

std::string library;
pid_t leader = 0;
std::map<pid_t, Tracee> tracees;
std::map<pid_t, std::vector<Mapping>> mappings;  // the executable ones of each process

struct Place {
  long call = -1;
  uintptr_t site = 0;
  int who = 0;
};

pid_t process_of(pid_t tid) {
  std::ifstream status("/proc/" + std::to_string(tid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("Tgid:", 0) == 0) return std::stoi(line.substr(5));
  }
  return tid;
}

std::vector<Mapping> read_mappings(pid_t process) {
  std::vector<Mapping> result;
  std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
  std::map<std::string, uintptr_t> bases;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin, end;
    char protection[5];
    int length = 0;
    if (sscanf(line.c_str(), "%lx-%lx %4s %*s %*s %*s %n", &begin, &end, protection, &length) !=
        3) {
      continue;
    }
    const std::string path = line.substr(static_cast<size_t>(length));
    const uintptr_t base = bases.emplace(path, begin).first->second;
    if (protection[2] != 'x') continue;
    const std::string file = path.substr(path.rfind('/') + 1);
    result.push_back({begin, end, base, path == library,
                      file.rfind("libc.so", 0) == 0 || file.rfind("ld-linux", 0) == 0 ||
                          file.rfind("libc-", 0) == 0 || file.rfind("ld-", 0) == 0});
  }
  return result;
}

const Mapping* find(pid_t process, uintptr_t address) {
  std::vector<Mapping>& known = mappings[process];
  for (const Mapping& m : known) {
    if (m.begin <= address && address < m.end) return &m;
  }
  return nullptr;
}

// Whether the call that the stopped thread is about to make is one of the library's.
bool is_ours(pid_t tid, const Tracee& tracee, const user_regs_struct& registers, Place* place) {
  if (find(tracee.process, registers.rip) == nullptr) {
    mappings[tracee.process] = read_mappings(tracee.process);  // something was loaded
  }
  static const unw_addr_space_t space = unw_create_addr_space(&_UPT_accessors, 0);
  void* thread = _UPT_create(tid);
  unw_cursor_t cursor;
  bool ours = false;
  if (unw_init_remote(&cursor, space, thread) == 0) {
    for (int depth = 0; depth < 20; ++depth) {
      unw_word_t address = 0;
      unw_get_reg(&cursor, UNW_REG_IP, &address);
      const Mapping* mapping = find(tracee.process, address);
      if (mapping == nullptr) break;
      if (!mapping->libc) {
        *place = {static_cast<long>(registers.orig_rax), address - mapping->base,
                  tracee.process == leader ? 0 : 1};
        ours = mapping->ours;
        break;
      }
      if (unw_step(&cursor) <= 0) break;
    }
  }
  _UPT_destroy(thread);
  return ours;
}

// The thread has stopped. It goes on, and is traced no more.
void detach(pid_t tid, int status) {
  const int number = WSTOPSIG(status);
  const bool is_signal = status >> 16 == 0 && number != (SIGTRAP | 0x80);
  ptrace(PTRACE_DETACH, tid, nullptr, is_signal ? number : 0);
}

int end_as(int status) {
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  return 128 + WTERMSIG(status);
}

}  // namespace

int main(int argc, char** argv) {
  Place wanted;
  int error = 0;
  if (argc < 4 || (strcmp(argv[2], "-") != 0 && sscanf(argv[2], "%ld:%lx:%d:%d", &wanted.call,
                                                       &wanted.site, &wanted.who, &error) != 4)) {
    fprintf(stderr, "usage: inject LIBRARY CALL:SITE:WHO:ERRNO|- COMMAND...\n");
    return 2;
  }
  char path[4096];
  if (realpath(argv[1], path) == nullptr) {
    fprintf(stderr, "inject: no such file: %s\n", argv[1]);
    return 2;
  }
  library = path;
  fcntl(3, F_SETFD, FD_CLOEXEC);
  leader = fork();
  if (leader == 0) {
    raise(SIGSTOP);
    execvp(argv[3], argv + 3);
    _exit(127);
  }
  int status;
  waitpid(leader, &status, WUNTRACED);
  constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                            PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
  if (ptrace(PTRACE_SEIZE, leader, nullptr, kOptions) != 0) {
    perror("inject: ptrace");
    kill(leader, SIGKILL);
    return 2;
  }
  tracees[leader].process = leader;
  kill(leader, SIGCONT);

  std::set<std::string> listed;
  // Once the call has failed, each thread that stops is let go, and so is each new thread.
  bool done = false;
  for (;;) {
    const pid_t tid = waitpid(-1, &status, __WALL);
    if (tid < 0) return 2;
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      tracees.erase(tid);
      if (tid == leader) return end_as(status);
      continue;
    }
    if (done) {
      detach(tid, status);
      continue;
    }
    const bool fresh = tracees.count(tid) == 0;
    Tracee& tracee = tracees[tid];
    if (fresh) tracee.process = process_of(tid);
    const int number = WSTOPSIG(status);
    const int event = status >> 16;
    int deliver = 0;
    if (event == PTRACE_EVENT_EXEC) {
      mappings.erase(tracee.process);
      tracee.in_call = true;  // its exit is still to come
    } else if (event == PTRACE_EVENT_STOP) {
      if (number != SIGTRAP) {  // a group stop
        ptrace(PTRACE_LISTEN, tid, nullptr, nullptr);
        continue;
      }
    } else if (event == 0 && number == (SIGTRAP | 0x80)) {
      tracee.in_call = !tracee.in_call;
      user_regs_struct registers;
      Place place;
      if (ptrace(PTRACE_GETREGS, tid, nullptr, &registers) != 0) continue;
      if (!tracee.in_call && tracee.failing) {
        registers.rax = static_cast<unsigned long>(-error);
        ptrace(PTRACE_SETREGS, tid, nullptr, &registers);
        dprintf(3, "failed\n");
        done = true;
        for (const auto& other : tracees) {
          if (other.first != tid) ptrace(PTRACE_INTERRUPT, other.first, nullptr, nullptr);
        }
        detach(tid, status);
        continue;
      }
      if (tracee.in_call && is_ours(tid, tracee, registers, &place)) {
        if (wanted.call < 0) {
          char line[64];
          snprintf(line, sizeof line, "%ld %lx %d\n", place.call, place.site, place.who);
          if (listed.insert(line).second) dprintf(3, "%s", line);
        } else if (place.call == wanted.call && place.site == wanted.site &&
                   place.who == wanted.who) {
          registers.orig_rax = static_cast<unsigned long>(-1);
          ptrace(PTRACE_SETREGS, tid, nullptr, &registers);
          tracee.failing = true;
        }
      }
    } else if (event == 0) {
      deliver = number;
    }
    ptrace(PTRACE_SYSCALL, tid, nullptr, deliver);
  }
}
