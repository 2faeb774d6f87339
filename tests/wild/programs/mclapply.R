# SPDX-License-Identifier: Apache-2.0
# Calls parallel::mclapply after the parent has used BLAS. Each call forks two children.
library(parallel)
source(file.path(dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))), "parent.R"))

for (round in seq_len(forks / 2)) {
  products <- mclapply(1:2, function(i) a %*% a, mc.cores = 2)
  check(all(sapply(products, identical, expected)), "a child's product differs")
  cat("..")
  flush(stdout())
}
check(identical(a %*% a, expected), "after the forks, the parent's product differs")
