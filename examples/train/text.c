/* text.c - reading texts: which files, whether they are text at all, what is held out. */
#include "train.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT_MAX_BYTES (UINT64_C(1) << 30)
#define TEXT_CYCLE 10        /* blocks; the last of them is held out */
#define TEXT_MAX_BLOCK 1024u /* characters */

int problem_set(struct problem *problem, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(problem->text, sizeof problem->text, format, arguments);
    va_end(arguments);
    return -1;
}

/* ---- one file ----------------------------------------------------------------------------- */

/* Bytes that hardly stand in a text: control characters but tab, line and page ends, backspace (in
 * overstruck manual pages) and escape. */
static bool is_odd(unsigned char c)
{
    return (c < 0x20 && strchr("\b\t\n\v\f\r\033", c) == NULL) || c == 0x7f;
}

/* A text has no 0 byte and at most one odd byte in a hundred. */
static int check_text(const unsigned char *data, size_t length, const char *name,
                      struct problem *problem)
{
    size_t odd = 0, first = 0;

    for (size_t i = 0; i < length; i++) {
        if (data[i] == 0)
            return problem_set(problem, "%s is not a text: it has a 0 byte at offset %zu", name, i);
        if (is_odd(data[i]) && odd++ == 0)
            first = i;
    }
    if (odd * 100 > length)
        return problem_set(problem,
                           "%s is not a text: %zu of its %zu bytes are control characters, "
                           "the first at offset %zu",
                           name, odd, length, first);
    return 0;
}

/* Append what is left to read in `file` to the text, or, since that would be no text, up to a bit
 * past the first 0 byte. */
static int append(struct text *text, FILE *file, const char *name, struct problem *problem)
{
    for (;;) {
        size_t before = text->length, room = before + 65536;
        unsigned char *data = realloc(text->data, room);
        if (data == NULL)
            return problem_set(problem, "not enough memory for the text up to %s", name);
        text->data = data;
        text->length += fread(data + before, 1, room - before, file);
        if (ferror(file))
            return problem_set(problem, "cannot read %s: %s", name, strerror(errno));
        if (text->length > TEXT_MAX_BYTES)
            return problem_set(problem, "more than 1 GiB of text, up to %s; give fewer files",
                               name);
        if (text->length < room || memchr(data + before, 0, room - before) != NULL)
            return 0;
    }
}

static int read_file(struct text *text, const char *name, struct problem *problem)
{
    size_t before = text->length;
    struct stat status;
    FILE *file;
    int failed;

    if (stat(name, &status) == 0 && S_ISDIR(status.st_mode))
        return problem_set(problem, "%s is a folder; name the files in it", name);
    file = fopen(name, "rb");
    if (file == NULL)
        return problem_set(problem, "cannot open %s: %s", name, strerror(errno));
    failed = append(text, file, name, problem);
    fclose(file);
    if (failed)
        return failed;
    if (text->length == before)
        return problem_set(problem, "%s is empty; leave it out or give a text", name);
    text->files++;
    return check_text(text->data + before, text->length - before, name, problem);
}

/* ---- the default texts -------------------------------------------------------------------- */

/* Read the file unless an earlier name led to the same one. seen[] has room for one more. */
static int read_once(struct text *text, const char *name, struct stat *seen, size_t *count,
                     struct problem *problem)
{
    struct stat *status = &seen[*count];

    if (stat(name, status) != 0 || !S_ISREG(status->st_mode))
        return 0;
    for (size_t i = 0; i < *count; i++) {
        if (seen[i].st_ino == status->st_ino && seen[i].st_dev == status->st_dev)
            return 0;
    }
    ++*count;
    return read_file(text, name, problem);
}

static int read_default(struct text *text, struct problem *problem)
{
    struct dirent **entry;
    struct stat *seen;
    size_t count = 0;
    int failed = 0;
    int entries = scandir(TRAIN_DEFAULT_TEXTS, &entry, NULL, alphasort);

    if (entries < 0)
        return problem_set(problem,
                           "cannot read the default texts in %s (%s); name text files to "
                           "learn from",
                           TRAIN_DEFAULT_TEXTS, strerror(errno));
    seen = calloc((size_t)entries + 1, sizeof *seen);
    if (seen == NULL)
        failed = problem_set(problem, "not enough memory to list %s", TRAIN_DEFAULT_TEXTS);
    for (int i = 0; i < entries; i++) {
        char name[sizeof TRAIN_DEFAULT_TEXTS + sizeof entry[i]->d_name];
        snprintf(name, sizeof name, "%s/%s", TRAIN_DEFAULT_TEXTS, entry[i]->d_name);
        if (!failed)
            failed = read_once(text, name, seen, &count, problem);
        free(entry[i]);
    }
    free(entry);
    free(seen);
    if (!failed && count == 0)
        failed = problem_set(problem, "there are no files in %s; name text files to learn from",
                             TRAIN_DEFAULT_TEXTS);
    return failed;
}

int text_read(struct text *text, char *const *files, struct problem *problem)
{
    int failed = 0;

    memset(text, 0, sizeof *text);
    if (files[0] == NULL)
        failed = read_default(text, problem);
    for (; *files != NULL && !failed; files++)
        failed = read_file(text, *files, problem);
    if (failed)
        text_free(text);
    return failed;
}

void text_free(struct text *text)
{
    free(text->data);
    text->data = NULL;
    text->length = 0;
}

/* ---- symbols and held-out blocks ---------------------------------------------------------- */

static void number_symbols(struct text *text)
{
    bool used[TRAIN_MAX_SYMBOLS] = {false};
    unsigned char symbol_of[TRAIN_MAX_SYMBOLS] = {0};

    for (size_t i = 0; i < text->length; i++)
        used[text->data[i]] = true;
    text->symbols = 0;
    for (int byte = 0; byte < TRAIN_MAX_SYMBOLS; byte++) {
        if (used[byte]) {
            symbol_of[byte] = (unsigned char)text->symbols;
            text->byte_of[text->symbols++] = (unsigned char)byte;
        }
    }
    for (size_t i = 0; i < text->length; i++)
        text->data[i] = symbol_of[text->data[i]];
}

/* Windows in `length` characters that must lie in them whole. */
static size_t windows(size_t length, size_t context)
{
    return length > context ? length - context : 0;
}

int text_prepare(struct text *text, int context, struct problem *problem)
{
    size_t shortest = 2 * TEXT_CYCLE * ((size_t)context + 1);
    size_t cycle, rest, train;

    if (text->length < shortest)
        return problem_set(problem,
                           "the text has %zu characters; a context of %d needs %zu: give "
                           "more text or a smaller --context",
                           text->length, context, shortest);
    number_symbols(text);
    if (text->symbols < 2)
        return problem_set(problem, "the text is one character over and over: there is nothing to "
                                    "learn");
    text->context = (size_t)context;
    text->block = text->length / (2 * TEXT_CYCLE);
    if (text->block > TEXT_MAX_BLOCK)
        text->block = text->context < TEXT_MAX_BLOCK / 2 ? TEXT_MAX_BLOCK : 2 * text->context;
    cycle = TEXT_CYCLE * text->block;
    train = cycle - text->block;
    rest = text->length % cycle;
    text->train_positions = text->length / cycle * windows(train, text->context) +
                            windows(rest < train ? rest : train, text->context);
    text->heldout_positions = text->length / cycle * windows(text->block, text->context) +
                              windows(rest > train ? rest - train : 0, text->context);
    return 0;
}

size_t text_train_target(const struct text *text, size_t index)
{
    size_t each = (TEXT_CYCLE - 1) * text->block - text->context;

    return index / each * TEXT_CYCLE * text->block + text->context + index % each;
}

size_t text_heldout_target(const struct text *text, size_t index)
{
    size_t each = text->block - text->context;

    return (index / each * TEXT_CYCLE + TEXT_CYCLE - 1) * text->block + text->context +
           index % each;
}
