/* faulty_script.c - reads the script of a faulty backend; the grammar is in serry/faulty.h. */
#include "backend/faulty.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define ERROR_PREFIX "SERRY_ERR_"

static bool read_number(const char *text, long low, long high, long *number)
{
    char *end;

    *number = strtol(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && *number >= low && *number <= high;
}

static bool read_chance(const char *text, double *chance)
{
    char *end;

    *chance = strtod(text, &end);
    return *text != '\0' && *end == '\0' && *chance >= 0.0 && *chance <= 1.0;
}

static bool read_code(const char *text, int *code)
{
    static const int codes[] = {
#define SERRY_X(name, value, scope, severity, group, text) value,
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    };

    for (size_t i = 0; i < SERRY_ERROR_CODES; i++) {
        *code = codes[i];
        if (strcmp(serry_error_name(*code) + strlen(ERROR_PREFIX), text) == 0)
            return true;
    }
    return false;
}

static bool is_kind(const char *text)
{
    static const char *const others[] = {"open", "agree", "shrink", "alloc"};

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strcmp(text, others[i]) == 0)
            return true;
    for (int kind = 0; kind < SERRY_KINDS; kind++)
        if (kind != SERRY_KIND_MEET && strcmp(text, serry_kind_name((serry_kind)kind)) == 0)
            return true;
    return false;
}

static bool read_condition(faulty_rule *rule, const char *name, const char *value)
{
    long number = 0;
    bool good = false;

    if (strcmp(name, "rank") == 0) {
        good = read_number(value, 0, SERRY_MAX_RANKS - 1, &number);
        rule->rank = (int)number;
    } else if (strcmp(name, "op") == 0) {
        good = read_number(value, 1, INT32_MAX, &number);
        rule->op = (uint64_t)number;
    } else if (strcmp(name, "times") == 0) {
        good = read_number(value, 1, INT32_MAX, &number);
        rule->times = (uint32_t)number;
    } else if (strcmp(name, "p") == 0) {
        good = read_chance(value, &rule->chance);
    } else if (strcmp(name, "kind") == 0 && is_kind(value)) {
        good = true;
        snprintf(rule->kind, sizeof(rule->kind), "%s", value);
    }
    return good;
}

static bool read_action(faulty_rule *rule, serry_fault fault, const char *value)
{
    long number;

    if (rule->fault != SERRY_FAULTS) /* one is enough */
        return false;
    rule->fault = fault;
    switch (fault) {
    case SERRY_FAULT_FAIL:
        return value != NULL && read_code(value, &rule->value);
    case SERRY_FAULT_DELAY:
        if (value == NULL || !read_number(value, 0, INT32_MAX, &number))
            return false;
        rule->value = (int)number;
        return true;
    default:
        return value == NULL;
    }
}

/* One word: "name" or "name=value". */
static bool read_word(faulty_rule *rule, char *word)
{
    static const char *const actions[SERRY_FAULTS] = {
#define SERRY_X(name, text) text,
        SERRY_FAULT_MAP(SERRY_X)
#undef SERRY_X
    };
    char *value = strchr(word, '=');
    bool good = false;

    if (value != NULL)
        *value++ = '\0';
    int fault = 0;
    while (fault < SERRY_FAULTS && strcmp(word, actions[fault]) != 0)
        fault++;
    if (fault < SERRY_FAULTS)
        good = read_action(rule, (serry_fault)fault, value);
    else if (value != NULL)
        good = read_condition(rule, word, value);
    if (value != NULL)
        value[-1] = '=';
    return good;
}

static int read_rule(faulty_rule *rule, char *text, serry_error *error)
{
    char *rest;

    snprintf(rule->text, sizeof(rule->text), "%s", text);
    rule->rank = -1;
    rule->chance = -1.0;
    rule->fault = SERRY_FAULTS;
    for (char *word = strtok_r(text, " \t", &rest); word != NULL;
         word = strtok_r(NULL, " \t", &rest))
        if (!read_word(rule, word))
            return serry_fail(error, SERRY_ERR_INVALID,
                              "faulty_create: \"%.60s\" in \"%s\" is no word of a rule here; see "
                              "serry/faulty.h",
                              word, rule->text);
    if (rule->fault == SERRY_FAULTS)
        return serry_fail(error, SERRY_ERR_INVALID, "faulty_create: \"%s\" has no action",
                          rule->text);
    if (rule->chance < 0.0) {
        rule->chance = 1.0;
        rule->times += rule->times == 0;
    }
    return SERRY_OK;
}

int faulty_read(faulty_table *table, const char *script, serry_error *error)
{
    char *copy = strdup(script), *rest;
    int rc = SERRY_OK;

    if (copy == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "faulty_create: out of memory");
    for (char *text = strtok_r(copy, ";\n", &rest); text != NULL && rc == SERRY_OK;
         text = strtok_r(NULL, ";\n", &rest)) {
        text += strspn(text, " \t");
        if (*text == '\0')
            continue;
        if (table->rules == SERRY_FAULTY_RULES)
            rc = serry_fail(error, SERRY_ERR_INVALID, "faulty_create: more than %u rules",
                            SERRY_FAULTY_RULES);
        else
            rc = read_rule(&table->rule[table->rules++], text, error);
    }
    free(copy);
    return rc;
}
