// SPDX-License-Identifier: Apache-2.0
#include "stack.h"

#include <dirent.h>
#include <libunwind-ptrace.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace forksafe_test {
namespace {

struct Mapping {
  unw_word_t begin;
  unw_word_t end;
  std::string object;
};

std::vector<Mapping> read_mappings(pid_t pid) {
  std::vector<Mapping> result;
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    Mapping m;
    if (sscanf(line.c_str(), "%lx-%lx", &m.begin, &m.end) != 2) continue;
    const size_t slash = line.rfind('/');
    if (slash == std::string::npos) continue;
    m.object = line.substr(slash + 1);
    result.push_back(m);
  }
  return result;
}

std::vector<pid_t> list_threads(pid_t pid) {
  std::vector<pid_t> result;
  DIR* folder = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (folder == nullptr) return result;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') result.push_back(atoi(entry->d_name));
  }
  closedir(folder);
  std::sort(result.begin(), result.end());
  return result;
}

// Seized and interrupted, a thread gets no signal and goes on where it was.
class StoppedThread {
 public:
  explicit StoppedThread(pid_t tid) : tid_(tid) {
    if (ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) return;
    seized_ = true;
    int status = 0;
    stopped_ = ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) == 0 &&
               waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status);
  }
  ~StoppedThread() {
    if (seized_) ptrace(PTRACE_DETACH, tid_, nullptr, nullptr);
  }
  StoppedThread(const StoppedThread&) = delete;
  StoppedThread& operator=(const StoppedThread&) = delete;
  bool stopped() const { return stopped_; }

 private:
  pid_t tid_;
  bool seized_ = false;
  bool stopped_ = false;
};

std::vector<Frame> walk(pid_t tid, unw_addr_space_t space, const std::vector<Mapping>& mappings) {
  std::vector<Frame> frames;
  void* remote = _UPT_create(tid);
  unw_cursor_t cursor;
  if (remote != nullptr && unw_init_remote(&cursor, space, remote) == 0) {
    do {
      unw_word_t ip = 0;
      unw_word_t offset = 0;
      char name[256] = "";
      if (unw_get_reg(&cursor, UNW_REG_IP, &ip) != 0 || ip == 0) break;
      Frame frame;
      if (unw_get_proc_name(&cursor, name, sizeof name, &offset) == 0) frame.function = name;
      for (const Mapping& m : mappings) {
        if (ip >= m.begin && ip < m.end) frame.object = m.object;
      }
      frames.push_back(frame);
    } while (frames.size() < 64 && unw_step(&cursor) > 0);
  }
  if (remote != nullptr) _UPT_destroy(remote);
  return frames;
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

bool is_runtime(const std::string& object) {
  for (const char* name :
       {"openblas", "libgomp", "libomp.", "libiomp", "libblis", "libblas.so", "libmkl"}) {
    if (contains(object, name)) return true;
  }
  return false;
}

pid_t parent_of(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
  const size_t end_of_name = text.rfind(')');
  if (end_of_name == std::string::npos) return -1;
  char state = 0;
  int parent = -1;
  return sscanf(text.c_str() + end_of_name + 1, " %c %d", &state, &parent) == 2 ? parent : -1;
}

// The functions that a runtime waits in. Others may be misnamed: in a stripped object a static
// function goes by the name of the exported one before it.
bool is_known_place(const std::string& function) {
  for (const char* name :
       {"exec_blas", "blas_thread_shutdown", "blas_memory_", "gemm_driver", "GOMP_", "__kmp"}) {
    if (function.rfind(name, 0) == 0) return true;
  }
  return false;
}

// Where this stack waits in a runtime: of the run of runtime frames nearest to the inside, the
// innermost that is a known place, or else the outermost. Empty when it is not in a runtime, or is
// a pool's own worker, whose runtime frames end at the thread's start.
std::string place_in_runtime(const ThreadStack& stack, bool is_main) {
  size_t first = 0;
  while (first < stack.frames.size() && !is_runtime(stack.frames[first].object)) ++first;
  if (first == stack.frames.size()) return "";
  const Frame* place = nullptr;
  size_t last = first;
  for (; last < stack.frames.size() && is_runtime(stack.frames[last].object); ++last) {
    const Frame& frame = stack.frames[last];
    if (place == nullptr || !is_known_place(place->function)) place = &frame;
  }
  // Below a worker's runtime frames there is the C library's start of a thread and nothing else. The
  // main thread is nobody's worker, even where its unwind ends inside the runtime (the wheels').
  bool from_thread_start = !is_main && stack.frames.size() - last <= 2;
  for (size_t i = last; i < stack.frames.size(); ++i) {
    const std::string& object = stack.frames[i].object;
    if (!contains(object, "libc.so") && !contains(object, "libpthread")) from_thread_start = false;
  }
  if (from_thread_start) return "";
  return (place->function.empty() ? "a function without a name" : place->function) + " (" +
         place->object + ")";
}

}  // namespace

std::vector<ThreadStack> read_stacks(pid_t pid) {
  std::vector<ThreadStack> result;
  const std::vector<Mapping> mappings = read_mappings(pid);
  unw_addr_space_t space = unw_create_addr_space(&_UPT_accessors, 0);
  if (space == nullptr) return result;
  for (const pid_t tid : list_threads(pid)) {
    const StoppedThread thread(tid);
    if (thread.stopped()) result.push_back({tid, walk(tid, space, mappings)});
  }
  unw_destroy_addr_space(space);
  return result;
}

std::vector<pid_t> process_tree(pid_t pid) {
  std::vector<pid_t> tree = {pid};
  std::vector<std::pair<pid_t, pid_t>> parents;
  DIR* folder = opendir("/proc");
  if (folder == nullptr) return tree;
  while (const dirent* entry = readdir(folder)) {
    const int other = atoi(entry->d_name);
    if (other > 0) parents.emplace_back(other, parent_of(other));
  }
  closedir(folder);
  for (size_t i = 0; i < tree.size(); ++i) {
    for (const auto& [child, parent] : parents) {
      if (parent == tree[i]) tree.push_back(child);
    }
  }
  return tree;
}

std::string where_stuck(pid_t pid) {
  for (const ThreadStack& stack : read_stacks(pid)) {
    const std::string place = place_in_runtime(stack, stack.tid == pid);
    if (!place.empty()) return place;
  }
  return "";
}

std::vector<std::string> where_tree_stuck(pid_t pid) {
  std::vector<std::string> result;
  for (const pid_t process : process_tree(pid)) {
    const std::string place = where_stuck(process);
    if (!place.empty()) result.push_back((process == pid ? "parent: " : "child: ") + place);
  }
  return result;
}

}  // namespace forksafe_test
