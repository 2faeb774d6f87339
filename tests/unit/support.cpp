// SPDX-License-Identifier: Apache-2.0
#include "support.h"

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "elf/loaded_objects.h"

std::string fixture_path(const std::string& name) {
  return std::string(FIXTURE_DIR) + "/lib" + name + ".so";
}

void* load(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(dlerror());
  return handle;
}

void* symbol_in(void* handle, const char* name) {
  void* address = dlsym(handle, name);
  if (address == nullptr) throw std::runtime_error(std::string("no such symbol: ") + name);
  return address;
}

forksafe::ElfImage image_at(const void* address) {
  forksafe::ElfImage image;
  if (!forksafe::find_object(address, &image)) throw std::runtime_error("no object there");
  return image;
}

TemporaryDirectory::TemporaryDirectory() {
  path_ = (std::filesystem::temp_directory_path() / "forksafe-unit-XXXXXX").string();
  if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp: " + path_);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

namespace {

// Reads until the other side closes; false when `limit_ms` passed first.
bool read_all(int fd, int limit_ms, std::string* text) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::milliseconds(limit_ms);
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd poll_fd = {fd, POLLIN, 0};
    if (poll(&poll_fd, 1, static_cast<int>(left)) <= 0) continue;
    char buffer[4096];
    const ssize_t count = read(fd, buffer, sizeof buffer);
    if (count <= 0) return true;
    text->append(buffer, static_cast<size_t>(count));
  }
}

}  // namespace

std::string run_in_child(const std::function<std::string()>& body, int limit_ms) {
  int fds[2];
  if (pipe(fds) != 0) throw std::runtime_error("pipe");
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error("fork");
  if (pid == 0) {
    close(fds[0]);
    // Catch2's handlers would print its report a second time.
    for (const int fatal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) signal(fatal, SIG_DFL);
    alarm(static_cast<unsigned>(limit_ms / 1000 + 10));  // should this test itself be killed
    std::string answer;
    try {
      answer = body();
    } catch (const std::exception& e) {
      answer = e.what();
    }
    const ssize_t written = write(fds[1], answer.data(), answer.size());
    _exit(written == static_cast<ssize_t>(answer.size()) ? 0 : 1);
  }
  close(fds[1]);
  std::string text;
  const bool hung = !read_all(fds[0], limit_ms, &text);
  close(fds[0]);
  if (hung) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (hung) return "hung";
  if (WIFSIGNALED(status)) return text + "signal " + std::to_string(WTERMSIG(status));
  if (WEXITSTATUS(status) != 0) return text + "exit " + std::to_string(WEXITSTATUS(status));
  return text;
}

bool forbid_call(long call, int argument, uint32_t bits) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  constexpr unsigned kLowWord = 4;
#else
  constexpr unsigned kLowWord = 0;
#endif
  const auto offset =
      static_cast<unsigned>(offsetof(seccomp_data, args)) + 8 * static_cast<unsigned>(argument);
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset + kLowWord),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {sizeof filter / sizeof *filter, filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
