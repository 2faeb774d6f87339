# SPDX-License-Identifier: Apache-2.0
# Runs an R program with a copy of Debian's R, to whose ldpaths the one in this folder is appended:
# rscript.sh PROGRAM
set -eu
mkdir R R/bin R/etc
ln -s /usr/lib/R/bin/* R/bin
ln -s /usr/lib/R/etc/* R/etc
for part in /usr/lib/R/*; do
  [ -e "R/${part##*/}" ] || ln -s "$part" R
done
rm R/bin/R R/etc/ldpaths
sed "s|^R_HOME_DIR=.*|R_HOME_DIR=$PWD/R|" /usr/lib/R/bin/R >R/bin/R
chmod +x R/bin/R
cat /usr/lib/R/etc/ldpaths ldpaths >R/etc/ldpaths
export RHOME="$PWD/R" # where Rscript looks for R
exec Rscript "$@"
