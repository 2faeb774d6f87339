// SPDX-License-Identifier: Apache-2.0
// What the programs of this folder share: bounds, a child that is waited for, pages that parent and
// child share, and a BLAS by its path. Each program forks a few times and ends with 0 when its one
// behaviour holds, 1 when it does not, 2 on a wrong usage, 77 where it can't be run.
#pragma once

#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace harm {

/// Prints a line and ends this process, without exit handlers: they may wait for a pool.
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void finish(int status,
                                                                      const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  fflush(stderr);
  _exit(status);
}

/// This process and its children may use so much processor time and no more.
inline void limit_processor_time(unsigned seconds) {
  const rlimit limit = {seconds, seconds + 1};
  setrlimit(RLIMIT_CPU, &limit);
}

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Waits until `holds()`, at most so many seconds.
template <typename Condition>
bool wait_until(double seconds, const Condition& holds) {
  for (const double end = now() + seconds; !holds();) {
    if (now() > end) return false;
    usleep(500);
  }
  return true;
}

#ifdef _OPENMP
/// How many threads a parallel region has.
inline int members() {
  int count = 0;
#pragma omp parallel reduction(+ : count)
  count += 1;
  return count;
}
#endif

constexpr int kHung = -1;

/// The wait status of a child, or kHung: it had to be killed after so many seconds.
inline int wait_status(pid_t child, double seconds) {
  int status = 0;
  const bool ended = wait_until(seconds, [&] { return waitpid(child, &status, WNOHANG) == child; });
  if (ended) return status;
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return kHung;
}

/// Ends this program with 1 unless the child ends with 0 in so many seconds.
inline void require_success(pid_t child, double seconds, const char* who) {
  const int status = wait_status(child, seconds);
  if (status == kHung) finish(1, "%s HUNG", who);
  if (WIFSIGNALED(status)) finish(1, "%s was ended by signal %d", who, WTERMSIG(status));
  if (status != 0) finish(1, "%s ended with %d", who, WEXITSTATUS(status));
}

/// A zeroed T that this process and its children share.
template <typename T>
T* shared() {
  void* page = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) finish(2, "mmap");
  return static_cast<T*>(page);
}

/// Ends the program with 77 where two threads can't run at once.
inline void need_two_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2) {
    finish(77, "needs two processors");
  }
}

/// A BLAS, by its path and the prefix and suffix of its function names: LIBRARY [PREFIX [SUFFIX]].
class Blas {
 public:
  Blas(std::string path, std::string prefix, std::string suffix)
      : prefix_(std::move(prefix)), suffix_(std::move(suffix)) {
    library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) finish(2, "%s", dlerror());
  }

  void* find(const std::string& name) const {
    return dlsym(library_, (prefix_ + name + suffix_).c_str());
  }

  /// The number of threads that the BLAS reports, or -1 if it has no function for that.
  int threads() const {
    void* get = find("openblas_get_num_threads");
    return get == nullptr ? -1 : reinterpret_cast<int (*)()>(get)();
  }

 private:
  void* library_;
  std::string prefix_;
  std::string suffix_;
};

/// A product whose elements are small whole numbers: exact with any number of threads.
class Product {
 public:
  Product(const Blas& blas, int64_t order)
      : n_(order), a_(static_cast<size_t>(order * order)), c_(a_.size()) {
    multiply_ = reinterpret_cast<Multiply>(blas.find("dgemm_"));
    if (multiply_ == nullptr) finish(2, "no dgemm_");
    // Row i, column j of a: one for i = j or i = 0. So c has 1 + (j != 0) in row 0, else as a.
    for (int64_t i = 0; i < n_; ++i) {
      a_[static_cast<size_t>(i * n_ + i)] = 1;
      a_[static_cast<size_t>(i * n_)] = 1;
    }
  }

  void compute() {
    const double one = 1;
    const double zero = 0;
    // A 64-bit zero-extended word is right for 32-bit interfaces too, on little-endian machines.
    multiply_("N", "N", &n_, &n_, &n_, &one, a_.data(), &n_, a_.data(), &n_, &zero, c_.data(), &n_,
              1, 1);
  }

  /// Computes the product and returns whether every element is exact.
  bool exact() {
    for (double& x : c_) x = -1;
    compute();
    for (int64_t j = 0; j < n_; ++j) {
      for (int64_t i = 0; i < n_; ++i) {
        const double expected = i == 0 && j > 0 ? 2 : i == 0 || i == j ? 1 : 0;
        if (c_[static_cast<size_t>(j * n_ + i)] != expected) return false;
      }
    }
    return true;
  }

 private:
  using Multiply = void (*)(const char*, const char*, const int64_t*, const int64_t*,
                            const int64_t*, const double*, const double*, const int64_t*,
                            const double*, const int64_t*, const double*, double*, const int64_t*,
                            size_t, size_t);
  int64_t n_;
  std::vector<double> a_;
  std::vector<double> c_;
  Multiply multiply_;
};

}  // namespace harm
