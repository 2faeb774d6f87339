// SPDX-License-Identifier: Apache-2.0
// backtrace() from a signal handler, as profilers and crash reporters call it, finds its way from
// inside a BLAS call to main.
//
//   stack_from_handler LIBRARY [PREFIX [SUFFIX]]
#include <execinfo.h>
#include <pthread.h>
#include <sys/time.h>

#include "program.h"

namespace {

using namespace harm;

constexpr int kSamples = 60;
constexpr int kMostFrames = 100;

pthread_t main_thread;
volatile sig_atomic_t sample_count;
void* samples[kSamples][kMostFrames];
int depths[kSamples];

void sample(int) {
  if (!pthread_equal(pthread_self(), main_thread) || sample_count == kSamples) return;
  depths[sample_count] = backtrace(samples[sample_count], kMostFrames);
  sample_count = sample_count + 1;
}

// The bottom of each stack: the return address of main, which lies in libc.
bool reaches(int which, const void* caller_of_main) {
  for (int i = 0; i < depths[which]; ++i) {
    if (samples[which][i] == caller_of_main) return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) finish(2, "usage: stack_from_handler LIBRARY [PREFIX [SUFFIX]]");
  limit_processor_time(60);
  void* first[4];
  backtrace(first, 4);  // loads what it needs: not in a signal handler
  const void* caller_of_main = __builtin_return_address(0);
  main_thread = pthread_self();
  const Blas blas(argv[1], argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
  Product product(blas, 500);
  if (!product.exact()) finish(2, "the parent computes wrongly");

  signal(SIGPROF, sample);
  const itimerval often = {{0, 2000}, {0, 2000}};
  setitimer(ITIMER_PROF, &often, nullptr);
  for (const double end = now() + 20; sample_count < kSamples && now() < end;) product.compute();
  const itimerval never = {};
  setitimer(ITIMER_PROF, &never, nullptr);

  int cut_off = 0;
  for (int i = 0; i < sample_count; ++i) cut_off += reaches(i, caller_of_main) ? 0 : 1;
  if (sample_count < kSamples / 2) finish(2, "%d samples only", static_cast<int>(sample_count));
  // One or two may stand where the compiler's tables are wrong for an instruction.
  if (cut_off * 20 > sample_count) {
    finish(1, "%d of %d stacks are cut off", cut_off, static_cast<int>(sample_count));
  }
  _exit(0);
}
