// SPDX-License-Identifier: Apache-2.0
// What the benchmark programs share: options, an OpenBLAS loaded by path, statistics, the clock.
#pragma once

#include <dlfcn.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace bench {

[[noreturn]] inline void fail(const std::string& message) {
  fprintf(stderr, "%s\n", message.c_str());
  exit(2);
}

/// Options of the form --name=value.
class Options {
 public:
  Options(int argc, char** argv) : arguments_(argv + 1, argv + argc) {}

  std::string text(const std::string& name, const std::string& fallback) const {
    const std::string start = "--" + name + "=";
    for (const std::string& argument : arguments_) {
      if (argument.compare(0, start.size(), start) == 0) return argument.substr(start.size());
    }
    return fallback;
  }
  int number(const std::string& name, int fallback) const {
    const std::string value = text(name, "");
    if (value.empty()) return fallback;
    char* end = nullptr;
    const long result = strtol(value.c_str(), &end, 10);
    if (*end != '\0' || result < 0 || result > 100000000) fail("--" + name + ": not a number");
    return static_cast<int>(result);
  }

 private:
  std::vector<std::string> arguments_;
};

inline double clock_us(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}
inline double now_us() { return clock_us(CLOCK_MONOTONIC); }

inline void sleep_us(long us) {
  const timespec t = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&t, nullptr);
}

/// Waits until no other thread of this process runs. After a call, OpenBLAS's workers spin for a
/// time that differs from build to build: 2^26 to 2^28 ticks (blas_server.c, THREAD_TIMEOUT), 27 to
/// 110 ms at 2.4 GHz.
inline void wait_for_sleep() {
  for (bool running = true; running;) {
    sleep_us(5000);
    running = false;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      if (task.path().filename() == std::to_string(getpid())) continue;  // this thread
      std::string line;
      std::getline(std::ifstream(task.path() / "stat"), line);
      const size_t end_of_name = line.rfind(')');
      running |= end_of_name != std::string::npos && line[end_of_name + 2] == 'R';
    }
  }
}

/// The number of page faults without I/O so far, for RUSAGE_SELF or RUSAGE_THREAD.
inline double page_faults(int who) {
  rusage usage;
  getrusage(who, &usage);
  return static_cast<double>(usage.ru_minflt);
}

/// The value below which the given share of the values lies.
inline double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double position = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, values.size() - 1);
  const double part = position - static_cast<double>(below);
  return values[below] * (1 - part) + values[above] * part;
}

/// Median and quartiles as a JSON object.
inline std::string summary(const std::vector<double>& values) {
  char text[128];
  snprintf(text, sizeof text, "{\"median\": %.4f, \"q1\": %.4f, \"q3\": %.4f, \"count\": %zu}",
           quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75), values.size());
  return text;
}

/// Loads `count` copies of a library. Each copy is a file of its own in the folder, because the
/// dynamic linker loads a file only once, even by two names.
inline std::vector<void*> load_copies(const std::string& file, const std::string& folder,
                                      int count) {
  std::vector<void*> handles;
  for (int i = 0; i < count; ++i) {
    const std::string copy =
        folder + "/" + std::to_string(i) + std::filesystem::path(file).filename().string();
    std::filesystem::copy_file(file, copy);
    handles.push_back(dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (handles.back() == nullptr) fail(dlerror());
  }
  return handles;
}

/// An OpenBLAS, loaded by its path. --prefix and --suffix are those of the function names in a
/// wheel's build.
class Blas {
 public:
  explicit Blas(const Options& options) : Blas(options, open(options.text("blas", ""))) {}

  /// A copy of --blas that has been loaded already.
  Blas(const Options& options, void* handle)
      : prefix_(options.text("prefix", "")), suffix_(options.text("suffix", "")), handle_(handle) {
    // Builds with 64 in the suffix have 64-bit integers.
    wide_ = suffix_.find("64") != std::string::npos;
    dgemm_ = find("dgemm_");
  }

  void set_threads(int threads) const {
    reinterpret_cast<void (*)(int)>(find("openblas_set_num_threads"))(threads);
  }
  int threads() const { return reinterpret_cast<int (*)()>(find("openblas_get_num_threads"))(); }

  /// c = a * b, all of order n.
  void multiply(int n, const double* a, const double* b, double* c) const {
    if (wide_) {
      call<int64_t>(n, a, b, c);
    } else {
      call<int32_t>(n, a, b, c);
    }
  }

 private:
  static void* open(const std::string& path) {
    void* handle = dlopen(path.c_str(), RTLD_NOW);
    if (path.empty() || handle == nullptr) fail("--blas=PATH: " + std::string(dlerror()));
    return handle;
  }

  void* find(const std::string& name) const {
    // A Fortran name ends in an underscore. scipy_openblas64 has the suffix behind it: dgemm_64_.
    void* address = dlsym(handle_, (prefix_ + name + suffix_).c_str());
    if (address == nullptr) fail("no " + prefix_ + name + suffix_);
    return address;
  }

  template <typename Int>
  void call(int order, const double* a, const double* b, double* c) const {
    using Dgemm = void (*)(const char*, const char*, const Int*, const Int*, const Int*,
                           const double*, const double*, const Int*, const double*, const Int*,
                           const double*, double*, const Int*);
    const Int n = order;
    const double one = 1;
    const double zero = 0;
    reinterpret_cast<Dgemm>(dgemm_)("N", "N", &n, &n, &n, &one, a, &n, b, &n, &zero, c, &n);
  }

  std::string prefix_;
  std::string suffix_;
  bool wide_ = false;
  void* handle_ = nullptr;
  void* dgemm_ = nullptr;
};

/// Two factors and room for their product.
struct Matrices {
  explicit Matrices(int order)
      : n(order), a(static_cast<size_t>(order) * static_cast<size_t>(order), 1.0), b(a), c(a) {}
  void multiply(const Blas& blas) { blas.multiply(n, a.data(), b.data(), c.data()); }

  int n;
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> c;
};

}  // namespace bench
