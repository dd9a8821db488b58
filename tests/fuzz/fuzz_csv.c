/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Any bytes as CSV: parse, then read every cell as text and as number. */
#include <stdlib.h>
#include <string.h>

#include "apmw/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apmw_csv *csv = NULL;
    apmw_error err;
    if (apmw_csv_parse("fuzz", (const char *)data, size, &csv, &err) != APMW_OK)
        return 0;
    size_t characters = 0;
    for (size_t row = 0; row < apmw_csv_rows(csv); row++) {
        for (int col = 0; col < (int)apmw_csv_cols(csv); col++) {
            double number;
            int64_t integer;
            characters += strlen(apmw_csv_cell(csv, row, col));
            apmw_csv_double(csv, row, col, &number, &err);
            apmw_csv_int(csv, row, col, 0, &integer, &err);
        }
    }
    if (characters > size)
        abort(); /* cells cannot hold more than the file */
    apmw_csv_free(csv);
    return 0;
}
