// SPDX-License-Identifier: Apache-2.0
#include "support.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace forksafe_test {

namespace fs = std::filesystem;

TemporaryDirectory::TemporaryDirectory() {
  path_ = (fs::temp_directory_path() / "forksafe-cli-XXXXXX").string();
  if (mkdtemp(path_.data()) == nullptr || chmod(path_.c_str(), 0755) != 0) {
    throw std::runtime_error("mkdtemp: " + path_);
  }
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

int count(const std::string& text, const std::string& part) {
  int result = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++result;
  return result;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

void write_file(const std::string& path, const std::string& content, unsigned mode) {
  std::ofstream(path, std::ios::binary) << content;
  if (chmod(path.c_str(), mode) != 0) throw std::runtime_error("can't write " + path);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string installed(const std::string& name) {
  const char* path = getenv("PATH");
  std::istringstream folders(std::string(path != nullptr ? path : "/usr/bin:/bin") +
                             ":/usr/sbin:/sbin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = folder + "/" + name;
    if (access(file.c_str(), X_OK) == 0) return file;
  }
  skip("not installed: " + name);
}

std::string forksafe_command() { return FORKSAFE_COMMAND; }
std::string forksafe_library() { return FORKSAFE_LIB; }

Outcome run_words(const std::vector<std::string>& words, const Environment& environment) {
  Command command;
  command.arguments = words;
  command.environment = environment;
  command.quiet_seconds = command.total_seconds = 30;
  return run(command);
}

Outcome run_forksafe(std::vector<std::string> words, const Environment& environment) {
  words.insert(words.begin(), forksafe_command());
  return run_words(words, environment);
}

Outcome run_shell(const std::string& script, Environment environment) {
  environment["FORKSAFE_COMMAND"] = forksafe_command();
  return run_words({"/bin/sh", "-c", script}, environment);
}

}  // namespace forksafe_test
