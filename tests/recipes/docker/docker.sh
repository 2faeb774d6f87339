# SPDX-License-Identifier: Apache-2.0
# Builds the image of the Dockerfile, and runs a command in it: docker.sh PROGRAMS COMMAND [ARG...]
# No registry is needed: the image "base" has only folders, and the container sees this machine's /usr.
set -eu
programs=$1
shift

# engine ARGUMENT...: runs podman with images and containers in this folder.
engine() {
  podman --root="$PWD/storage" --runroot="$PWD/run" --storage-driver=vfs --cgroup-manager=cgroupfs \
    --runtime=runc --runtime-flag=root="$PWD/runc" "$@"
}

# remove_groups: removes the control groups of earlier containers, which stay if a container is killed.
remove_groups() {
  find /sys/fs/cgroup -depth -type d -path '*/recipe-podman*' -exec rmdir {} +
}

remove_groups
mkdir -p base/dev base/etc/alternatives base/proc base/run base/sys base/tmp base/usr
for folder in bin lib lib64; do
  ln -s "usr/$folder" "base/$folder"
done
tar -C base -c . | engine import - base >&2
engine build --isolation=chroot --tag=app . >&2
# What ENTRYPOINT names may be in a build folder, with the library beside it.
entry=$(engine inspect --format='{{join .Config.Entrypoint " "}}' app)
folder=${entry%/cli/*}
# The limits are those that a container may have that is made without CAP_SYS_RESOURCE. In this machine's
# process ids and network it can be inspected from outside.
engine run --rm --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 --network=host --pid=host --ipc=host \
  --env-host --cgroup-parent=/recipe-podman --volume=/usr:/usr:ro --volume=/etc/alternatives:/etc/alternatives:ro \
  --volume="$programs:$programs:ro" --volume="$PWD:$PWD" \
  ${folder:+--volume="$folder:$folder:ro"} app "$@"
remove_groups
