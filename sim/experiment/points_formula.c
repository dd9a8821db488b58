/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Formulas of settings cells: recipes state many numbers relative to the load, e.g. "=CONC//4" sequences a rank. */
#include "apmw/points.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
    const char *at;
    const apmw_formula_vars *vars;
    const char *problem; /* NULL = none */
    int depth;
} parser;

enum { MAX_NESTING = 32 };

static double sum(parser *p);

static void skip(parser *p)
{
    while (isspace((unsigned char)*p->at))
        p->at++;
}

static bool accept(parser *p, char c)
{
    skip(p);
    if (*p->at != c)
        return false;
    p->at++;
    return true;
}

static double fail(parser *p, const char *problem)
{
    if (!p->problem)
        p->problem = problem;
    return 0;
}

/* Places of one rank for a load of `share` sequences a rank. Recipes with power-of-two batch limits drive 5 to 30 % more than
 * the places (4301 for 4096, 2253 for 2048, 1229 for 1024, 666 for 512): such a load names its limit, another says nothing. */
static double slots(double share)
{
    double power = exp2(floor(log2(share)));
    bool over = share != floor(share) && share <= 1.31 * power;
    return share > 0 ? (over ? power : ceil(share)) : share;
}

static double name(parser *p)
{
    const apmw_formula_vars *v = p->vars;
    const struct {
        const char *name;
        double value;
    } known[] = {{"CONC", v->conc}, {"ISL", v->isl}, {"OSL", v->osl}, {"TP", v->tp},
                 {"ADP", v->adp},   {"EP", v->ep},   {"K", v->k},     {"WORKERS", v->workers}};
    char word[16] = "";
    size_t n = 0;
    while (isalnum((unsigned char)*p->at)) {
        if (n + 1 < sizeof word)
            word[n++] = *p->at;
        p->at++;
    }
    if (accept(p, '(')) {
        double a = sum(p), b = 0;
        bool two = strcmp(word, "max") == 0 || strcmp(word, "min") == 0;
        if (two) {
            if (!accept(p, ','))
                return fail(p, "max and min take two arguments");
            b = sum(p);
        }
        if (!accept(p, ')'))
            return fail(p, "a closing parenthesis is missing");
        if (two)
            return word[1] == 'a' ? fmax(a, b) : fmin(a, b);
        if (strcmp(word, "up64") == 0)
            return 64 * ceil(a / 64);
        if (strcmp(word, "slots") == 0)
            return slots(a);
        return fail(p, "unknown function (max, min, up64 and slots are known)");
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(word, known[i].name) == 0)
            return isnan(known[i].value) ? fail(p, "a number that it needs is not known for this row")
                                         : known[i].value;
    return fail(p, "unknown name (CONC, ISL, OSL, TP, ADP, EP, K and WORKERS are known)");
}

static double factor(parser *p)
{
    skip(p);
    if (++p->depth > MAX_NESTING)
        return fail(p, "nested too deeply");
    double value;
    if (accept(p, '(')) {
        value = sum(p);
        if (!accept(p, ')'))
            value = fail(p, "a closing parenthesis is missing");
    } else if (accept(p, '-')) {
        value = -factor(p);
    } else if (isalpha((unsigned char)*p->at)) {
        value = name(p);
    } else {
        char *end;
        value = strtod(p->at, &end);
        if (end == p->at)
            value = fail(p, "a number or a name is missing");
        p->at = end;
    }
    p->depth--;
    return value;
}

static double product(parser *p)
{
    double value = factor(p);
    while (!p->problem) {
        if (accept(p, '*')) {
            value *= factor(p);
        } else if (accept(p, '/')) {
            bool whole = accept(p, '/');
            double by = factor(p);
            if (by == 0)
                return fail(p, "division by zero");
            value = whole ? floor(value / by) : value / by;
        } else {
            break;
        }
    }
    return value;
}

static double sum(parser *p)
{
    double value = product(p);
    while (!p->problem) {
        if (accept(p, '+'))
            value += product(p);
        else if (accept(p, '-'))
            value -= product(p);
        else
            break;
    }
    return value;
}

apmw_status apmw_formula_eval(const char *text, const apmw_formula_vars *vars, double *out, apmw_error *err)
{
    parser p = {.at = text, .vars = vars};
    accept(&p, '=');
    double value = sum(&p);
    skip(&p);
    if (!p.problem && *p.at)
        p.problem = "text after the end";
    if (!p.problem && !isfinite(value))
        p.problem = "no finite value";
    if (p.problem)
        return apmw_error_set(err, APMW_E_DATA, "formula \"%s\": %s", text, p.problem);
    *out = value;
    return APMW_OK;
}
