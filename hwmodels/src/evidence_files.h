/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Private to hwmodels: names of measured tables. */
#ifndef APMW_EVIDENCE_FILES_H
#define APMW_EVIDENCE_FILES_H
#include <dirent.h>
#include <stdbool.h>

/* "gemm.sglang0.5.14.csv.zst" -> op, engine, version; false for other names. */
bool apmw_evidence_name(const char *file, char op[48], char engine[16], char version[24]);
/* For scandir: files that end like tables, in order of name. */
int apmw_evidence_is_table(const struct dirent *entry);
int apmw_evidence_by_name(const struct dirent **a, const struct dirent **b);

#endif
