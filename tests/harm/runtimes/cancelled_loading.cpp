// SPDX-License-Identifier: Apache-2.0
// A thread that has a cancellation request loads a BLAS. The dynamic linker has no cancellation
// point, so the thread comes back from dlopen. Then other threads load libraries.
//
//   cancelled_loading LIBRARY [PREFIX [SUFFIX]]
#include <pthread.h>

#include "program.h"

namespace {

using namespace harm;

void* load_when_cancelled(void* path) {
  pthread_cancel(pthread_self());
  void* library = dlopen(static_cast<const char*>(path), RTLD_NOW | RTLD_LOCAL);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  return library;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: cancelled_loading LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(60);
  alarm(60);
  pthread_t thread;
  void* library = nullptr;
  if (pthread_create(&thread, nullptr, load_when_cancelled, argv[1]) != 0) finish(2, "no thread");
  pthread_join(thread, &library);
  if (library == PTHREAD_CANCELED) finish(1, "the thread was cancelled inside dlopen");
  if (library == nullptr) finish(2, "dlopen failed");
  const Blas blas(argv[1], argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
  if (!Product(blas, 300).exact()) finish(1, "inexact");
  return 0;
}
