// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "futex.h"
#include "signals.h"

// This file makes the system calls itself: libc's open, poll, write and close are cancellation
// points, and fork is not one.
namespace forksafe {
namespace {

const char* log = nullptr;

// What the system calls take for no time at all.
constexpr struct { long seconds, nanoseconds; } kAtOnce = {0, 0};

// A write to a pipe without a reader raises SIGPIPE, one beyond RLIMIT_FSIZE SIGXFSZ. The program
// must not get that signal for a line of ours. The kernel sends it to the thread that writes.
void write_unsignalled(int fd, const Line& line) {
  uint64_t mask = block_signals();
  if (mask == kNotBlocked) return;
  constexpr uint64_t kOfWrites = signal_bit(SIGPIPE) | signal_bit(SIGXFSZ);
  uint64_t before = 0;
  syscall(SYS_rt_sigpending, &before, sizeof before);
  if (syscall(SYS_write, fd, line.text(), line.size()) < 0) {
    const uint64_t ours = kOfWrites & ~before;
    const long taken = syscall(SYS_rt_sigtimedwait, &ours, nullptr, &kAtOnce, sizeof ours);
    // If a filter of system calls forbids that, the signal stays blocked: it would end the program.
    if (taken < 0 && errno != EAGAIN) mask |= ours;
  }
  restore_signals(mask);
}

// The program goes on if the line can't be written. It does not wait for whoever reads the log.
void write_line(int fd, const char* text) {
  if (fd == STDERR_FILENO && stderr_is_full()) return;
  Line line;
  line.add("forksafe[").add(static_cast<long>(getpid())).add("]: ").add(text).end();
  write_unsignalled(fd, line);
}

}  // namespace

Line& Line::add(const char* text) {
  for (; *text != '\0' && size_ + 1 < sizeof text_; ++text) {
    const auto c = static_cast<unsigned char>(*text);
    text_[size_++] = c < ' ' || c == 0x7f ? '?' : *text;
  }
  text_[size_] = '\0';
  return *this;
}

Line& Line::add(long number) {
  char digits[24];
  char* p = digits + sizeof digits;
  *--p = '\0';
  unsigned long rest =
      number < 0 ? 0UL - static_cast<unsigned long>(number) : static_cast<unsigned long>(number);
  do {
    *--p = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  if (number < 0) *--p = '-';
  return add(p);
}

Line& Line::add_foreign(const char* text) {
  constexpr size_t kLongest = 200;
  for (size_t i = 0; text[i] != '\0'; ++i) {
    if (i == kLongest) return add("...");
    const char shown[2] = {text[i], '\0'};
    add(shown);
  }
  return *this;
}

Line& Line::end() {
  if (size_ + 1 == sizeof text_) --size_;
  text_[size_++] = '\n';
  text_[size_] = '\0';
  return *this;
}

void set_log(const char* target) { log = target; }

bool logging() { return log != nullptr; }

bool stderr_is_full() {
  pollfd looked_at = {STDERR_FILENO, POLLOUT, 0};
  return syscall(SYS_ppoll, &looked_at, 1, &kAtOnce, nullptr, 0) == 0;
}

void report(const char* line) {
  if (log == nullptr) return;
  const KeepErrno keep;
  if (strcmp(log, "stderr") == 0) {
    write_line(STDERR_FILENO, line);
    return;
  }
  // O_NONBLOCK: a FIFO may have no reader, or be full. The line is lost then.
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  const long fd = syscall(SYS_openat, AT_FDCWD, log, kFlags, 0666);
  if (fd < 0) return;
  write_line(static_cast<int>(fd), line);
  syscall(SYS_close, fd);
}

void report_to_stderr(const char* line) {
  const KeepErrno keep;
  write_line(STDERR_FILENO, line);
}

}  // namespace forksafe
