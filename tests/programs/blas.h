// SPDX-License-Identifier: Apache-2.0
// What the programs of this folder share: their options, a BLAS that is called through its Fortran
// interface, and operations with a fixed input whose results are compared to the bit.
#pragma once

#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "matrix.h"

[[noreturn]] inline void fail(int status, const std::string& message) {
  const std::string line = message + "\n";
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) std::abort();
  _exit(status);
}

// The program's options, each of the form --name=value.
class Arguments {
 public:
  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i];
      const size_t equals = text.find('=');
      if (text.rfind("--", 0) != 0 || equals == std::string::npos) fail(2, "usage: " + text);
      values_[text.substr(2, equals - 2)] = text.substr(equals + 1);
    }
  }
  std::string text(const std::string& name, const std::string& fallback) const {
    const auto found = values_.find(name);
    return found == values_.end() ? fallback : found->second;
  }
  int number(const std::string& name, int fallback) const {
    return std::stoi(text(name, std::to_string(fallback)));
  }

 private:
  std::map<std::string, std::string> values_;
};

// Integers are passed as 64-bit words. An interface with 32-bit integers reads the lower half,
// which is right on little-endian machines. On others, only such interfaces are tested.
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
using Integer = int32_t;
#else
using Integer = int64_t;
#endif

// A BLAS, called through its Fortran interface.
class Blas {
 public:
  Blas(const std::string& path, const std::string& prefix, const std::string& suffix, int flags)
      : prefix_(prefix), suffix_(suffix) {
    // No path means a BLAS that was loaded at the start of the program.
    library_ = dlopen(path.empty() ? nullptr : path.c_str(), flags);
    if (library_ == nullptr) fail(2, dlerror());
  }
  void* find(const std::string& name, bool fortran = true) const {
    // For example dgemm_, dgemm_64_ or scipy_dgemm_64_.
    const std::string full = prefix_ + name + (fortran ? "_" : "") + suffix_;
    return dlsym(library_, full.c_str());
  }
  template <typename Function>
  Function get(const std::string& name, bool fortran = true) const {
    void* result = find(name, fortran);
    if (result == nullptr) fail(2, "the library has no " + name);
    return reinterpret_cast<Function>(result);
  }
  void set_threads(int threads) const {
    using Set = void (*)(int);
    if (auto set = reinterpret_cast<Set>(find("openblas_set_num_threads", false))) set(threads);
    // An OpenMP build uses the number of its runtime, which dlsym finds among its dependencies.
    if (auto set = reinterpret_cast<Set>(dlsym(library_, "omp_set_num_threads"))) set(threads);
  }
  void close() { dlclose(library_); }

 private:
  void* library_;
  std::string prefix_;
  std::string suffix_;
};

// A BLAS or LAPACK operation with a fixed input. result() computes it from scratch each time.
class Operation {
 public:
  Operation(const Blas& blas, const std::string& name, Integer n) : name_(name), n_(n) {
    input_ = random_numbers(static_cast<size_t>(n * n));
    if (name == "gemm") {
      gemm_ = blas.get<Gemm>("dgemm");
    } else if (name == "lu") {
      getrf_ = blas.get<Getrf>("dgetrf");
    } else if (name == "svd") {
      gesdd_ = blas.get<Gesdd>("dgesdd");
    } else if (name == "dot") {
      gemv_ = blas.get<Gemv>("dgemv");
    } else {
      fail(2, "no such operation: " + name);
    }
  }

  Matrix result() const {
    Matrix out(input_.size());
    const double one = 1.0;
    const double zero = 0.0;
    const Integer n = n_;
    const Integer step = 1;
    if (name_ == "gemm") {
      gemm_("N", "N", &n, &n, &n, &one, input_.data(), &n, input_.data(), &n, &zero, out.data(), &n,
            1, 1);
      return out;
    }
    if (name_ == "dot") {
      gemv_("N", &n, &n, &one, input_.data(), &n, input_.data(), &step, &zero, out.data(), &step,
            1);
      return out;
    }
    Integer info = 0;
    if (name_ == "lu") {
      std::vector<Integer> pivots(static_cast<size_t>(n));
      out = input_;
      getrf_(&n, &n, out.data(), &n, pivots.data(), &info);
      return out;
    }
    Matrix a = input_;
    Matrix values(static_cast<size_t>(n));
    Matrix u(a.size());
    Matrix vt(a.size());
    const Integer size = 8 * n * n + 32 * n;
    Matrix work(static_cast<size_t>(size));
    std::vector<Integer> integer_work(static_cast<size_t>(8 * n));
    gesdd_("A", &n, &n, a.data(), &n, values.data(), u.data(), &n, vt.data(), &n, work.data(),
           &size, integer_work.data(), &info, 1);
    values.insert(values.end(), u.begin(), u.end());
    return values;
  }

 private:
  using Gemm = void (*)(const char*, const char*, const Integer*, const Integer*, const Integer*,
                        const double*, const double*, const Integer*, const double*, const Integer*,
                        const double*, double*, const Integer*, size_t, size_t);
  using Gemv = void (*)(const char*, const Integer*, const Integer*, const double*, const double*,
                        const Integer*, const double*, const Integer*, const double*, double*,
                        const Integer*, size_t);
  using Getrf = void (*)(const Integer*, const Integer*, double*, const Integer*, Integer*,
                         Integer*);
  using Gesdd = void (*)(const char*, const Integer*, const Integer*, double*, const Integer*,
                         double*, double*, const Integer*, double*, const Integer*, double*,
                         const Integer*, Integer*, Integer*, size_t);
  std::string name_;
  Integer n_;
  Matrix input_;
  Gemm gemm_ = nullptr;
  Gemv gemv_ = nullptr;
  Getrf getrf_ = nullptr;
  Gesdd gesdd_ = nullptr;
};

inline bool same(const Matrix& a, const Matrix& b) {
  return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}
