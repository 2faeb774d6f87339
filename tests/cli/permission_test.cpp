// SPDX-License-Identifier: Apache-2.0
// Processes that may not be traced: which permission is missing, and what /proc tells without it.
#include "process/permission.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "background.h"

using namespace forksafe_test;
using forksafe::cli::Access;
using forksafe::cli::find_obstacle;
using forksafe::cli::Obstacle;
namespace fs = std::filesystem;

namespace {

constexpr const char* kDocker = "docker run --cap-add=SYS_PTRACE";
constexpr const char* kKubernetes = "securityContext: {capabilities: {add: [SYS_PTRACE]}}";

/// Runs a command line and waits for its end.
Answer ask_by(std::vector<std::string> line, const std::vector<std::string>& more) {
  line.insert(line.end(), more.begin(), more.end());
  Command command;
  command.arguments = line;
  Background asked(command);
  const int status = asked.wait(60);
  REQUIRE(WIFEXITED(status));
  return {WEXITSTATUS(status), asked.output(), asked.errors()};
}

/// A program that every user may run, as another user.
class OtherUser {
 public:
  explicit OtherUser(unsigned user = 65534, unsigned group = 65534) : user_(user), group_(group) {
    if (geteuid() != 0) skip("only root can become another user");
    installed("setpriv");
  }
  std::vector<std::string> line(const std::string& program) {
    const std::string copy = folder_.file(fs::path(program).filename());
    if (!fs::exists(copy)) fs::copy_file(program, copy);
    return {"setpriv",        "--reuid", std::to_string(user_), "--regid", std::to_string(group_),
            "--clear-groups", copy};
  }
  Command command(Command command) {
    const std::vector<std::string> front = line(command.arguments[0]);
    command.arguments.erase(command.arguments.begin());
    command.arguments.insert(command.arguments.begin(), front.begin(), front.end());
    return command;
  }
  std::string folder() const { return folder_.path(); }

 private:
  TemporaryDirectory folder_;
  unsigned user_;
  unsigned group_;
};

/// Checks that the commands refuse a process with one line that has `part`, and that diagnose gives
/// no verdict. Returns its JSON.
Json check_denied(const std::vector<std::string>& forksafe, pid_t pid, const std::string& missing,
                  const std::string& part) {
  INFO(part);
  for (const std::string name : {"diagnose", "check"}) {
    Answer answer = ask_by(forksafe, {name, word(pid)});
    INFO(answer.describe());
    if (name == "diagnose") {
      CHECK(contains(answer.output, word(pid) + " ("));
      CHECK(contains(answer.output, ") may not be traced, so there is no verdict.\n  This is "));
      CHECK_FALSE(contains(answer.output, ") is stuck."));
      answer.output.clear();
    }
    check_refused(answer, part);
    CHECK(answer.errors.rfind("forksafe: process " + word(pid) + " (", 0) == 0);
  }
  const Answer answer = ask_by(forksafe, {"diagnose", "--json", word(pid)});
  INFO(answer.describe());
  CHECK(answer.status == 2);
  const Json json = answer.json();
  REQUIRE(json.size() == 1);
  CHECK(json[0]["pid"] == pid);
  CHECK(json[0]["stuck"].is_null());
  CHECK(json[0]["code"] == "unknown");
  CHECK(json[0]["missing"] == missing);
  CHECK(contains(answer.errors, json[0]["error"].get<std::string>()));
  return json[0];
}

}  // namespace

TEST_CASE("without ptrace, /proc shows a child that lacks threads and waits",
          "[permission seccomp]") {
  const std::vector<std::string> denied = {NO_PTRACE, forksafe_command()};
  Background background(omp_specimen("team"));
  const pid_t child = background.ready();
  usleep(200000);
  const std::string part =
      std::string("seccomp forbids the system call ptrace here: ") +
      (geteuid() == 0 ? "in a container, add the capability SYS_PTRACE"
                      : "try as root (sudo), or with the capability SYS_PTRACE");
  const Json json = check_denied(denied, child, "seccomp", part);
  INFO(json.dump(1));
  CHECK(json["forked"] == true);
  CHECK(json["parent"] == background.pid());
  CHECK(json["grant"]["docker"] == kDocker);
  CHECK(json["grant"]["kubernetes"] == kKubernetes);
  CHECK(json["grant"]["slurm"] ==
        "srun --overlap --jobid=JOB --nodelist=NODE forksafe diagnose " + word(child));
  const Json& evidence = json["evidence"];
  CHECK(evidence["threads"] == 1);
  CHECK(evidence["asleep"] == 1);
  CHECK(evidence["in_futex"] == 1);
  CHECK(evidence["older_in_parent"] == 2);
  REQUIRE(evidence["runtimes"].size() == 1);
  const std::string runtime = evidence["runtimes"][0];
  CHECK(json["text"] == "This is a forked child of " + word(background.pid()) +
                            ". It lacks 2 threads of its parent. It has 1 thread, which waits in "
                            "futex(2). It has loaded " +
                            runtime +
                            ". A child that waits for lost threads looks like that, but so may a "
                            "healthy one that waits for work.");

  // The parent, the child, and the lines that help, once.
  const Answer tree = ask_by(denied, {"diagnose", "--children", word(background.pid())});
  INFO(tree.describe());
  CHECK(tree.status == 2);
  CHECK(contains(tree.output, "\n  This is not a forked child. It has 3 threads, of which 2 wait"));
  CHECK(contains(tree.output, "\n  This is a forked child of "));
  const size_t help = tree.output.find("  To trace it:\n    Docker:      " + std::string(kDocker));
  CHECK(help != std::string::npos);
  CHECK(tree.output.find("Docker:", help + 30) == std::string::npos);

  // list needs only what it can see. check can't start a command.
  const Answer list = ask_by(denied, {"list", word(child)});
  INFO(list.describe());
  CHECK(list.status == 0);
  CHECK(contains(list.output, "GNU OpenMP"));
  check_refused(ask_by(denied, {"check", "--", "true"}), "true: it can't be traced: " + part);
}

TEST_CASE("without ptrace, a healthy child is not called stuck", "[permission seccomp]") {
  const std::vector<std::string> denied = {NO_PTRACE, forksafe_command()};
  Background busy(omp_specimen("regions-1"));
  const pid_t child = busy.ready();
  for (int i = 0; i < 20; ++i) {
    const Json json = ask_by(denied, {"diagnose", "--json", word(child)}).json();
    INFO(json.dump(1));
    CHECK(json[0]["stuck"].is_null());
    CHECK(contains(json[0]["text"], "That does not tell whether it is stuck."));
  }
}

TEST_CASE("the process of another user, or of another group", "[permission user]") {
  OtherUser nobody;
  Background background(specimen({"idle"}));
  const pid_t pid = background.ready();
  const Json json = check_denied(nobody.line(forksafe_command()), pid, "other-user",
                                 "it belongs to user root: try as that user or as root (sudo)");
  CHECK(json["grant"]["docker"] == "docker exec --user 0 CONTAINER forksafe diagnose " + word(pid));
  CHECK(json["grant"]["kubernetes"] == "securityContext: {runAsUser: 0}");
  CHECK(json["evidence"]["runtimes"].is_null());
  CHECK(contains(json["text"],
                 "This is not a forked child. It has 1 thread, which sleeps. What it "
                 "has loaded can't be seen."));
  check_refused(ask_by(nobody.line(forksafe_command()), {"list", word(pid)}),
                "it belongs to user root: try as that user or as root (sudo)");

  Background of_nobody(nobody.command(specimen({"idle"})));
  const pid_t its = of_nobody.ready();
  CHECK(ask_by(nobody.line(forksafe_command()), {"diagnose", word(its)}).status == 0);
  OtherUser other_group(65534, 1);
  check_denied(other_group.line(forksafe_command()), its, "other-group",
               "it runs with group nogroup, and forksafe does not: try as root (sudo)");
}

TEST_CASE("list --all shows the processes of this user, and counts those that can't be read",
          "[permission all]") {
  OtherUser user(54321, 54321);  // which has no other processes
  Background of_root(specimen({"idle"}));
  Background readable(user.command(specimen({"idle"})));
  Background hidden(user.command(specimen({"not-dumpable"})));
  of_root.ready();
  hidden.ready();
  const pid_t pid = readable.ready();
  const Answer answer = ask_by(user.line(forksafe_command()), {"list", "--all", "--json"});
  INFO(answer.describe());
  CHECK(answer.status == 0);
  REQUIRE(answer.json().size() == 1);
  CHECK(answer.json()[0]["pid"] == pid);
  CHECK(answer.json()[0]["user"] == "number 54321");
  CHECK(answer.errors ==
        "forksafe: list: 1 more process can't be read: static, of another architecture, or not "
        "permitted\n");
}

TEST_CASE("a set-uid program, and one that is not dumpable", "[permission dumpable]") {
  OtherUser nobody;
  Background hidden(nobody.command(specimen({"not-dumpable"})));
  const Json json =
      check_denied(nobody.line(forksafe_command()), hidden.ready(), "not-dumpable",
                   "it is not dumpable (prctl PR_SET_DUMPABLE, or a set-uid program): "
                   "try as root (sudo), or with the capability SYS_PTRACE");
  CHECK(json["grant"]["docker"] == kDocker);
  CHECK(json["grant"]["slurm"].is_null());

  Command set_uid = nobody.command(specimen({"idle"}));
  fs::permissions(nobody.folder() + "/specimen", fs::perms::set_uid, fs::perm_options::add);
  Background raised(set_uid);
  const pid_t pid = raised.ready();
  if (!contains(read_file("/proc/" + word(pid) + "/status"), "Uid:\t65534\t0")) {
    skip("set-uid has no effect in the folder for temporary files");
  }
  check_denied(nobody.line(forksafe_command()), pid, "other-user",
               "it is a set-uid program of user root: try as root (sudo)");
}

TEST_CASE("a descendant that may not be traced leaves it open", "[permission dumpable]") {
  OtherUser nobody;
  Command command = nobody.command(specimen({"not-dumpable"}));
  const auto program =
      std::find(command.arguments.begin(), command.arguments.end(), nobody.folder() + "/specimen");
  const std::vector<std::string> shell = {"/bin/sh", "-c", "\"$@\" & wait", "sh"};
  command.arguments.insert(program, shell.begin(), shell.end());
  Background background(command);
  const pid_t child = background.ready();
  const std::string parent = word(background.pid());
  REQUIRE(child != background.pid());
  const Answer answer = ask_by(nobody.line(forksafe_command()), {"diagnose", parent});
  INFO(answer.describe());
  CHECK(answer.status == 2);
  CHECK(contains(answer.output, ") is not stuck in a runtime.\n"));
  CHECK(contains(
      answer.output,
      "  But 1 of its descendants may be stuck:  forksafe diagnose --children " + parent + "\n"));
  check_refused(
      {2, "", ask_by(nobody.line(forksafe_command()), {"diagnose", "--children", parent}).errors},
      "process " + word(child) + " (specimen): it is not dumpable");
}

TEST_CASE("root in a container does not have the capability SYS_PTRACE",
          "[permission capability]") {
  if (geteuid() != 0) skip("only root has capabilities to lose");
  const std::vector<std::string> root = {installed("setpriv"), "--bounding-set",
                                         "-sys_ptrace",        "--inh-caps",
                                         "-sys_ptrace",        forksafe_command()};
  Background background(specimen({"idle"}));
  const Json json = check_denied(root, background.ready(), "capability",
                                 "it has capabilities that forksafe does not have: in a container, "
                                 "add the capability SYS_PTRACE");
  CHECK(json["grant"]["kubernetes"] == kKubernetes);
  // A process with as few capabilities may be traced.
  OtherUser nobody;
  Background of_nobody(nobody.command(specimen({"idle"})));
  check_denied(
      root, of_nobody.ready(), "other-user",
      "it belongs to user nobody, and root does not have the capability SYS_PTRACE here: try "
      "as that user, or in a container, add that capability");
}

TEST_CASE("an id of another pid namespace", "[permission namespaces]") {
  if (geteuid() != 0) skip("only root can make a pid namespace");
  const std::string unshare = installed("unshare");
  Background background(specimen({"idle"}));
  const pid_t pid = background.ready();
  const std::vector<std::string> inside = {unshare, "--pid", "--fork", "--mount-proc"};
  std::vector<std::string> line = inside;
  line.push_back(forksafe_command());
  check_refused(ask_by(line, {"diagnose", word(pid)}),
                "process " + word(pid) +
                    ": no process has this id in forksafe's pid namespace (a container?)");

  // The other way round: the id that the container shows, where no process has it outside.
  Command container = specimen({"idle"});
  const std::string id = "30011";
  if (fs::exists("/proc/" + id)) skip("a process has the id of this test");
  container.arguments.insert(container.arguments.begin(),
                             {unshare, "--pid", "--fork", "--mount-proc", "/bin/sh", "-c",
                              "echo 30010 > /proc/sys/kernel/ns_last_pid && \"$@\"", "sh"});
  Background in_container(container);
  const pid_t its = in_container.ready();
  if (word(its) != id) skip("the next id can't be chosen");
  const Answer answer = ask({"diagnose", id});
  check_refused(answer, "process " + id + ": no process has this id; process ");
  check_refused(answer, " has it in its own pid namespace (a container?): give ");
  const std::string outside = answer.errors.substr(answer.errors.rfind(' ') + 1);
  CHECK(ask({"diagnose", outside.substr(0, outside.size() - 1)}).status == 0);
}

TEST_CASE("a child of the first process of a container", "[permission namespaces]") {
  if (geteuid() != 0) skip("only root can make a pid namespace");
  const std::string nsenter = installed("nsenter");
  Command container = omp_specimen("team");
  container.arguments.insert(container.arguments.begin(),
                             {installed("unshare"), "--pid", "--fork", "--mount-proc"});
  Background background(container);
  const std::string child = word(background.ready());
  usleep(200000);
  const std::string unshare = word(background.pid());
  std::string first = read_file("/proc/" + unshare + "/task/" + unshare + "/children");
  first.erase(first.find_last_not_of(' ') + 1);
  const std::vector<std::string> inside = {nsenter,  "--target",        first, "--pid", "--mount",
                                           "--root", forksafe_command()};
  const Diagnosis verdict = diagnosis_of(ask_by(inside, {"diagnose", "--json", child}));
  INFO(verdict.process.dump(1));
  CHECK(verdict.status == 1);
  CHECK(contains(verdict.at("text"), "This is a forked child of 1. It waits in "));
  CHECK(contains(verdict.at("text"), " team mate"));
  CHECK_FALSE(contains(verdict.at("text"), "its parent has ended"));
}

TEST_CASE("Yama's scope is named with its value", "[permission yama]") {
  Access access;
  access.own_user = 1000;
  access.its_user = {1000, 1000, 1000};
  access.yama_scope = 1;
  const Obstacle one = find_obstacle(access, 4242);
  CHECK(one.code == "yama");
  CHECK(describe(one) ==
        "kernel.yama.ptrace_scope is 1, which permits it only to the ancestors of a process and to "
        "the capability SYS_PTRACE: try as root (sudo), or with the capability SYS_PTRACE");
  CHECK(one.docker == kDocker);
  CHECK(one.kubernetes == kKubernetes);
  CHECK(one.slurm == "sysctl kernel.yama.ptrace_scope=0, as root of the node");

  access.yama_scope = 2;
  access.own_user = 0;
  access.its_user = {};
  CHECK(describe(find_obstacle(access, 4242)) ==
        "kernel.yama.ptrace_scope is 2, which permits it only to the capability SYS_PTRACE: in a "
        "container, add the capability SYS_PTRACE");

  access.yama_scope = 3;
  access.own_capabilities = uint64_t{1} << CAP_SYS_PTRACE;
  const Obstacle three = find_obstacle(access, 4242);
  CHECK(
      describe(three) ==
      "kernel.yama.ptrace_scope is 3, which forbids tracing to everybody until the next boot: set "
      "it to 1 in /etc/sysctl.d, and boot");
  CHECK(three.docker.empty());

  // Yama is not what forbids it to who has the capability.
  access.yama_scope = 2;
  CHECK(find_obstacle(access, 4242).code == "system");
  access.apparmor_profile = "docker-default";
  CHECK(find_obstacle(access, 4242).code == "apparmor");
  access.in_own_users = false;
  CHECK(find_obstacle(access, 4242).code == "user-namespace");
  access.tracer = 7;
  CHECK(find_obstacle(access, 4242).code == "tracer");
}

/// Whether `holds` is true of the access of a process that finds `line` in a file of /proc.
bool reads(const std::string& folder, const std::string& subfolder, const std::string& file,
           const std::string& line, bool (*holds)(const Access&)) {
  if (geteuid() != 0) skip("only root can mount a folder there");
  const pid_t child = fork();
  if (child == 0) {
    forksafe::cli::ProcessStatus status;
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", folder.c_str(), "tmpfs", 0, nullptr) != 0 ||
        mkdir((folder + subfolder).c_str(), 0755) != 0) {
      _exit(77);
    }
    std::ofstream(folder + subfolder + file) << line << '\n';
    const bool read = read_status(getpid(), &status);
    _exit(read && holds(read_access(status)) ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) skip("nothing can be mounted here");
  return WEXITSTATUS(status) == 0;
}

TEST_CASE("Yama's scope is read from /proc/sys", "[permission yama]") {
  CHECK(reads("/proc/sys/kernel", "/yama", "/ptrace_scope", "2",
              [](const Access& access) { return access.yama_scope == 2; }));
}

TEST_CASE("the AppArmor profile of forksafe is named", "[permission apparmor]") {
  Access access;
  access.apparmor_profile = "docker-default";
  const Obstacle obstacle = find_obstacle(access, 4242);
  CHECK(obstacle.code == "apparmor");
  CHECK(describe(obstacle) ==
        "the AppArmor profile docker-default, under which forksafe runs, may forbid it: run "
        "forksafe outside of that profile, or see the system's log (dmesg)");
  CHECK(obstacle.docker == "docker run --security-opt apparmor=unconfined");
  CHECK(obstacle.kubernetes == "securityContext: {appArmorProfile: {type: Unconfined}}");
  CHECK(obstacle.slurm == "srun --overlap --jobid=JOB --nodelist=NODE forksafe diagnose 4242");
}

TEST_CASE("the AppArmor profile is read from /proc, if it is enforced", "[permission apparmor]") {
  const auto is_named = [](const Access& a) { return a.apparmor_profile == "docker-default"; };
  const auto is_none = [](const Access& a) { return a.apparmor_profile.empty(); };
  const std::string attr = "/proc/self/attr";
  CHECK(reads(attr, "/apparmor", "/current", "docker-default (enforce)", is_named));
  CHECK(reads(attr, "/apparmor", "/current", "docker-default (complain)", is_none));
  CHECK(reads(attr, "/apparmor", "/current", "unconfined", is_none));
  // Before Linux 5.8, and there it may be a context of SELinux.
  CHECK(reads(attr, "/none", "/../current", "docker-default (enforce)", is_named));
  CHECK(reads(attr, "/none", "/../current", "system_u:system_r:container_t:s0", is_none));
}
