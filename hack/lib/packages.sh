# shellcheck shell=bash
# Debian packages: installed where a command is missing; fetched and unpacked beside the cache where installing would
# start a service (nginx, docker-registry) or collide (busybox with busybox-static).

# package of a command that the scripts call
command_package() {
  case $1 in
  gcc) echo "gcc libc6-dev" ;;
  ip) echo iproute2 ;;
  nsenter | unshare | setsid) echo util-linux ;;
  nft) echo nftables ;;
  sysctl) echo procps ;;
  bsdtar) echo libarchive-tools ;;
  iptables-legacy) echo iptables ;;
  tc) echo iproute2 ;;
  *) echo "$1" ;;
  esac
}

PACKAGES_UPDATED=''
packages_update() {
  [ -z "$PACKAGES_UPDATED" ] || return 0
  say "apt-get update"
  apt-get -qq update
  PACKAGES_UPDATED=1
}

# need_commands COMMAND...: install what brings the missing ones
need_commands() {
  local c packages=''
  for c in "$@"; do command -v "$c" >/dev/null || packages+=" $(command_package "$c")"; done
  [ -n "$packages" ] || return 0
  say "installing$packages"
  packages_update
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages >/dev/null
}
# need_package PACKAGE FILE: install it unless the file that it brings is there
need_package() {
  [ ! -e "$2" ] || return 0
  say "installing $1"
  packages_update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1" >/dev/null
}

# deb PACKAGE: print the folder into which it has been unpacked
deb() {
  local folder=$DEBS/$1
  if [ ! -f "$folder.done" ]; then
    rm -rf "$folder" "$folder.download"
    mkdir -p "$folder" "$folder.download"
    (cd "$folder.download" && { apt-get -qq -o APT::Sandbox::User=root download "$1" >/dev/null 2>&1 ||
      { packages_update && apt-get -qq -o APT::Sandbox::User=root download "$1" >/dev/null; } }) || die "cannot fetch $1"
    dpkg-deb -x "$folder.download"/"$1"_*.deb "$folder"
    rm -rf "$folder.download"
    touch "$folder.done"
  fi
  echo "$folder"
}

# foreign_deb ARCHITECTURE PACKAGE: the same of another architecture, with lists of its own: the machine's apt learns nothing
foreign_deb() {
  local folder=$DEBS/$1-$2 apt=$DEBS/$1.apt options
  if [ ! -f "$folder.done" ]; then
    rm -rf "$folder" "$folder.download"
    mkdir -p "$folder" "$folder.download" "$apt/lists/partial" "$apt/cache/archives/partial"
    options=(-qq -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache"
      -o APT::Sandbox::User=root)
    (cd "$folder.download" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "$2") >&2 || die "cannot fetch $2 for $1"
    dpkg-deb -x "$folder.download"/"$2"_*.deb "$folder"
    rm -rf "$folder.download" "$apt"
    touch "$folder.done"
  fi
  echo "$folder"
}

# build_packages: what the sources need to compile
build_packages() {
  need_commands gcc
  need_package libseccomp-dev /usr/include/seccomp.h
}

# test_packages: what the tests of the crates drive: registries, image tools, CNI plugins, firewalls
test_packages() {
  build_packages
  need_commands python3 curl openssl ip tc nft iptables-legacy conntrack socat skopeo umoci bsdtar strace unshare
  need_package containernetworking-plugins /usr/lib/cni/bridge
  need_package busybox-static /bin/busybox
  command -v docker-registry >/dev/null || PATH=$PATH:$(deb docker-registry)/usr/bin
  export PATH
}
