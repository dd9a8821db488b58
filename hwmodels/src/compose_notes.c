/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a reader of a deployment's times has to know before their digits: weights in a format that the part
 * cannot multiply, and parts of which only specifications are known. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "compose_internal.h"

bool apmw_compose_lacks_fp4(const compose_context *ctx)
{
    const char *const weights[] = {ctx->attn, ctx->mlp, ctx->shared, ctx->moe};
    bool fp4 = !strcmp(ctx->spec->precision, "fp4");
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        fp4 = fp4 || strstr(weights[i], "fp4");
    }
    return fp4 && isnan(ctx->accelerator->fp4_flop_per_s);
}

static const compose_op *find_op(const compose_ops *ops, const char *role)
{
    for (size_t i = 0; i < ops->n; i++) {
        if (!strcmp(ops->op[i].role, role)) {
            return &ops->op[i];
        }
    }
    return NULL;
}

/* The value of "name=" in a key of a table's group; "" when it has none. */
static void key_value(const char *key, const char *name, char *out, size_t size)
{
    const size_t length = strlen(name);
    out[0] = 0;
    for (const char *at = key; at; at = strchr(at, ';')) {
        at += *at == ';';
        if (!strncmp(at, name, length) && at[length] == '=') {
            snprintf(out, size, "%.*s", (int)strcspn(at + length + 1, ";"), at + length + 1);
            return;
        }
    }
}

/* "experts w4a16_mxfp4 (4.25 bits a weight, dequantised to fp8: measured rows of fp8_block less ...)". */
static void put_weights(const compose_context *ctx, const char *what, const char *dtype, const compose_op *op,
                        const char *column, const char *before, apmw_buf *out)
{
    const double bits = apmw_compose_bits(dtype);
    char rows[24] = "";
    apmw_buf_printf(out, "%s%s %s (%.3g bits a weight", before, what, dtype, bits);
    if (bits < 6 && op) {
        if (op->row.main.group) {
            key_value(apmw_op_group_key(op->row.main.group), column, rows, sizeof rows);
        }
        apmw_buf_printf(out, ", dequantised to %s: ", apmw_compose_product(ctx, rows[0] ? rows : dtype, NULL));
        if (!op->row.main.group) {
            apmw_buf_puts(out, "a form, no measured row");
        } else if (rows[0] && strcmp(rows, dtype)) {
            apmw_buf_printf(out, "measured rows of %s%s", rows,
                            op->row.weights_from_bits > 0 ? " less the time of the weight bytes saved" : "");
        } else {
            apmw_buf_puts(out, "measured rows");
        }
    }
    apmw_buf_puts(out, ")");
}

static void note_projected(const compose_context *ctx, apmw_buf *out)
{
    const apmw_accelerator_spec *a = ctx->accelerator;
    if (!a->projected && !ctx->spec->forms) {
        return;
    }
    apmw_buf_printf(out, "%s is %s: every operation is priced by a form on its specifications "
                    "(hwmodels/specs/accelerators/%s.json)", a->id,
                    a->projected ? "projected, nothing was measured on it" : "priced as if nothing had been measured on it",
                    a->id);
    if (a->projected && a->estimated[0]) {
        apmw_buf_printf(out, ", where %s %s an estimate", a->estimated, strchr(a->estimated, ',') ? "are" : "is");
    }
    if (a->projected && isnan(a->tdp_w)) {
        apmw_buf_puts(out, "; its power is not published, so there are no figures per MW");
    }
    apmw_buf_puts(out, "\n");
}

void apmw_compose_notes(const compose_context *ctx, const compose_ops *ops, apmw_buf *out)
{
    note_projected(ctx, out);
    if (!apmw_compose_lacks_fp4(ctx)) {
        return;
    }
    const compose_op *mlp = find_op(ops, "mlp"), *shared = find_op(ops, "shared"), *moe = find_op(ops, "moe");
    apmw_buf_printf(out, "%s has no FP4 matrix units; %s at %s is priced with weights of ", ctx->spec->platform,
                    ctx->llm->id, ctx->spec->precision[0] ? ctx->spec->precision : "its own precision");
    put_weights(ctx, "attention", ctx->attn, find_op(ops, "attn_gemm"), "gemm_dtype", "", out);
    if (mlp) {
        put_weights(ctx, "MLP", ctx->mlp, mlp, "gemm_dtype", ", ", out);
    }
    if (shared) {
        put_weights(ctx, "shared experts", ctx->shared, shared, "gemm_dtype", ", ", out);
    }
    if (moe) {
        put_weights(ctx, "experts", ctx->moe, moe, "moe_dtype", ", ", out);
    }
    apmw_buf_puts(out, "\n");
}
