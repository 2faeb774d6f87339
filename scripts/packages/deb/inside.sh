# SPDX-License-Identifier: Apache-2.0
# deb.sh runs this inside a tree, as root: inside.sh STEP. Steps that need the same packages run in the same
# layer. In POSIX sh.
#
# mirror, suite, version  set by deb.sh
set -eux
packages=/artefacts/deb/$suite

install() {
  [ -e /var/cache/apt/updated ] || apt-get -q update
  : >/var/cache/apt/updated
  apt-get -q install -y --no-install-recommends "$@"
}

# unpack FOLDER: unpacks the sources there, ready to be built.
unpack() {
  id builder >/dev/null 2>&1 || useradd --create-home builder
  mkdir -p "$1"
  cp "/artefacts/sources/forksafe-$version.tar.gz" "$1/forksafe_$version.orig.tar.gz"
  tar -C "$1" -xf "$1/forksafe_$version.orig.tar.gz"
  cp -r "$1/forksafe-$version/packaging/debian" "$1/forksafe-$version/debian"
  chown -R builder: "$1"
}

# build FOLDER OPTIONS [ARGUMENT...]: builds the sources there, with DEB_BUILD_OPTIONS=OPTIONS.
build() {
  folder=$1
  options=$2
  shift 2
  # unshare: a namespace without a network.
  (cd "$folder/forksafe-$version" && unshare --net runuser -u builder -- \
    env HOME=/home/builder DEB_BUILD_OPTIONS="parallel=$(nproc) $options" \
    dpkg-buildpackage -us -uc "$@") >"$folder/build.log" 2>&1 || {
    cat "$folder/build.log"
    return 1
  }
}

# collect FOLDER: copies what was built there to the artefacts.
collect() {
  mkdir -p "$packages"
  for file in "$1"/*; do
    [ -d "$file" ] || cp "$file" "$packages/"
  done
}

# left: lists all files of the system, except those that apt and dpkg write for themselves.
left() {
  find / -xdev '(' -path /artefacts -o -path /base -o -path /var/cache -o -path /var/log -o \
    -path /var/lib/apt -o -path /var/lib/dpkg ')' -prune -o -print | sort
}

step=$1
shift
case $step in
  build)
    install build-essential
    unpack /build/first
    grep -q "^forksafe ($version-" "/build/first/forksafe-$version/debian/changelog" || {
      echo "packaging/debian/changelog does not begin with version $version, which meson.build has"
      exit 1
    }
    apt-get -q build-dep -y --no-install-recommends "/build/first/forksafe-$version"
    # build QUICK: "yes" leaves out the tests that the build runs.
    if [ "${1:-no}" = yes ]; then build /build/first nocheck -Pnocheck; else build /build/first ''; fi
    collect /build/first
    ;;
  lintian)
    install lintian
    # The same packaging files serve all releases, so they follow bookworm's rules. Name no tag that this
    # lintian does not know, because lintian stops at it. pyproject.toml is for the wheel; Debian's packages
    # are built without it.
    newer=out-of-date-standards-version
    [ "$suite" = bookworm ] || newer=$newer,missing-prerequisite-for-pyproject-backend
    case $suite in
      bookworm | trixie) ;;
      *)
        newer=$newer,older-debian-watch-file-standard,package-uses-old-debhelper-compat-version
        newer=$newer,redundant-priority-optional-field,redundant-rules-requires-root-no-field
        ;;
    esac
    for changes in /build/*/*.changes; do
      # Without --show-overrides, because lintian would count overridden tags as failures.
      runuser -u builder -- lintian --pedantic -I \
        --suppress-tags "$newer" --fail-on error,warning,info,pedantic "$changes"
    done
    ;;
  blhc)
    install blhc
    # meson gives -fPIE to the compiler and -pie to the linker, but blhc wants both at the linker. Ignoring
    # -fPIE hides no fault, because the linker makes no -pie program of objects without -fPIE.
    blhc --all --ignore-flag -fPIE /build/first/build.log
    ;;
  again)
    # In another folder, by a user with another locale, time zone and umask, and without the tests.
    unpack /build/second/in-another-folder
    umask 027
    export TZ=Asia/Tokyo LC_ALL=C LANG=de_DE.UTF-8
    build /build/second/in-another-folder nocheck -Pnocheck
    cd /build/first
    sha256sum -- *.deb | (cd /build/second/in-another-folder && sha256sum --check)
    ;;
  autopkgtest)
    id builder >/dev/null 2>&1 || useradd --create-home builder
    install autopkgtest dpkg-dev
    timeout 1800 autopkgtest --test-name="$1" --user=builder --no-built-binaries \
      "$packages"/*_"$(dpkg --print-architecture)".deb "$packages"/*.dsc -- null
    ;;
  piuparts)
    install piuparts
    timeout 900 piuparts --existing-chroot=/base --mirror="$mirror main" --distribution="$suite" \
      "$packages"/forksafe_*_"$(dpkg --print-architecture)".deb \
      "$packages"/libforksafe_*_"$(dpkg --print-architecture)".deb
    ;;
  install)
    : >/tmp/before
    : >/tmp/after
    left >/tmp/before
    install "$packages"/forksafe_*_"$(dpkg --print-architecture)".deb \
      "$packages"/libforksafe_*_"$(dpkg --print-architecture)".deb
    [ "$(forksafe --version)" = "forksafe $version" ]
    forksafe cat /proc/self/maps | grep -F "$(forksafe --print-library)"
    dpkg --verify forksafe libforksafe
    apt-get -q purge -y --autoremove forksafe libforksafe
    left >/tmp/after
    diff /tmp/before /tmp/after
    ;;
  cross)
    dpkg --add-architecture arm64
    install crossbuild-essential-arm64
    unpack /build/arm64
    apt-get -q build-dep -y --no-install-recommends -a arm64 -P cross,nocheck \
      "/build/arm64/forksafe-$version"
    build /build/arm64 nocheck -aarm64 -Pcross,nocheck -b
    collect /build/arm64
    ;;
  cross-install)
    install "$packages"/forksafe_*_arm64.deb "$packages"/libforksafe_*_arm64.deb \
      "$packages"/libforksafe_*_amd64.deb
    aarch64-linux-gnu-objdump -p /usr/lib/aarch64-linux-gnu/forksafe/libforksafe.so |
      sed -n 's/^ *NEEDED *//p' >/tmp/needed
    # The canary of the stack protector is in the loader, which is a part of libc.
    [ "$(grep -vx ld-linux-aarch64.so.1 /tmp/needed)" = libc.so.6 ]
    [ -f /usr/lib/x86_64-linux-gnu/forksafe/libforksafe.so ]
    ;;
  cross-run)
    run() { timeout 60 /qemu/usr/bin/qemu-aarch64 "$@"; }
    [ "$(run /usr/bin/forksafe --version)" = "forksafe $version" ]
    # The library, in the one program for arm64 that is here. The loader says that it runs the
    # constructor.
    library=/usr/lib/aarch64-linux-gnu/forksafe/libforksafe.so
    run -E LD_PRELOAD=$library -E LD_DEBUG=libs /usr/bin/forksafe --version >/tmp/loaded 2>&1
    grep -F "calling init: $library" /tmp/loaded
    grep -Fx "forksafe $version" /tmp/loaded
    ;;
  *) exit 2 ;;
esac
