# pages.awk - man pages of section 3 out of the public headers, whose docstrings are the source.
#
#   awk -v version=V -v out=DIR -f troff.awk -f headers.awk -f pages.awk include/serry/*.h
#
# Each block of a header (headers.awk says what that is) makes one page, under the name of the first
# function, type, variable or constant that it declares; for the others there are pages that refer
# to it. What holds for a whole header, or below a title, stands on all pages of functions there.
# serry.3 lists all. Something without a docstring, or a docstring that speaks of arguments that are
# not there, is an error.

BEGIN {
    WIDTH = 71 # of a prototype: what 80 columns leave of the margins
}

# ---- declarations -------------------------------------------------------------------------------

# The arguments of a prototype, from the place of its parenthesis on, each with what ends it.
function split_arguments(s, open, args,    i, c, depth, n, arg) {
    for (i = open + 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (depth == 0 && (c == "," || c == ")")) {
            args[++n] = trim(arg) (c == "," ? "," : ");")
            arg = ""
        } else {
            depth += (c == "(") - (c == ")")
            arg = arg c
        }
    }
    return n
}

# Within bold text, with its name in italics; one that is a function stays as it is.
function mark_argument(arg,    name) {
    if (arg ~ /\)\(|^void\);/ || !match(arg, /[a-z_0-9]+(,|\);)$/))
        return escape(arg)
    name = substr(arg, RSTART)
    sub(/[,);]+$/, "", name)
    return escape(substr(arg, 1, RSTART - 1)) "\\fI" name "\\fB" substr(arg, RSTART + length(name))
}

# A prototype in bold, broken so that it fits, each line below the first argument.
function put_prototype(s,    open, column, args, n, i) {
    sub(/ __attribute__.*/, "", s)
    open = match(s, /serry_[a-z0-9_]+\(/) + RLENGTH - 1
    n = split_arguments(s, open, args)
    printf "\\fB%s", escape(substr(s, 1, open)) >file
    column = open
    for (i = 1; i <= n; i++) {
        if (i > 1 && column + length(args[i]) >= WIDTH) {
            printf "\n%" open "s", "" >file
            column = open
        } else if (i > 1) {
            printf " " >file
            column++
        }
        printf "%s", mark_argument(args[i]) >file
        column += length(args[i])
    }
    print "\\fR" >file
}

# Types, variables and constants as they stand in the header, but for the backslashes of its lists.
function put_code(code,    lines, n, i) {
    n = split(code, lines, "\n")
    for (i = 1; i <= n; i++) {
        sub(/ *\\$/, "", lines[i])
        print guard(escape(lines[i])) >file
    }
}

# ---- pages --------------------------------------------------------------------------------------

function put_section(title, text) {
    if (text != "")
        printf ".SH \"%s\"\n%s", title, text >file
}

function params_of(    i) {
    body = ""
    for (i = 1; i <= params; i++)
        put_entry("\\fI" escape(param_name[i]) "\\fR", param_text[i])
    return body
}

function errors_of(    i) {
    body = ""
    for (i = 1; i <= errors; i++)
        put_entry(mark(error_name[i]), error_text[i])
    return body
}

# Text in which all names stand to which a page refers: those that it uses, the other form of its
# functions, and its neighbours in the header.
function related(b,    s, i, name) {
    s = doc_of[b] " " code_of[b]
    if (kind_of[b] != "function")
        return s
    s = s " " text_of[section_of[b]]
    for (i = 1; i <= names_of[b]; i++) {
        name = name_of[b, i]
        s = s " serry_i" substr(name, 7)
        if (name ~ /^serry_i/)
            s = s " serry_" substr(name, 8)
    }
    for (i = b - 2; i <= b + 2; i++)
        if (header_of[i] == header_of[b] && kind_of[i] == "function")
            s = s " " name_of[i, 1]
    return s
}

# In alphabetical order, each once.
function see_also(b,    s, name, i, n, list, seen, text) {
    s = related(b)
    while (match(s, /[Ss][Ee][Rr][Rr][Yy]_[A-Za-z0-9_]+/)) {
        name = substr(s, RSTART, RLENGTH)
        s = substr(s, RSTART + RLENGTH)
        if (!(name in owner) || owner[name] == b || name in seen)
            continue
        seen[name] = 1
        for (i = n++; i > 0 && list[i] > name; i--)
            list[i + 1] = list[i]
        list[i + 1] = name
    }
    text = "\\fBserry\\fR(3)"
    for (i = 1; i <= n; i++)
        text = text ",\n\\fB" list[i] "\\fR(3)"
    return text ",\n\\fBserry\\fR(7)\n"
}

function returns_of(b,    i) {
    if (returns != "") {
        body = ""
        put_lines(returns)
        return body
    }
    for (i = 1; i <= prototypes[b]; i++)
        if (prototype[b, i] ~ /^int /)
            return mark("SERRY_OK, or a negative serry_error_code.") "\n"
    return ""
}

function begin_page(name) {
    file = out "/" name ".3"
    printf ".\\\" Made by scripts/man from the public headers; change those.\n" >file
    printf ".TH %s 3 \"\" \"serry %s\" \"Library functions of serry\"\n", name, version >file
    printf ".ad l\n.nh\n.SH NAME\n" >file
}

function put_synopsis(b,    i) {
    printf ".SH SYNOPSIS\n.nf\n\\fB#include <serry/%s>\\fR\n.sp\n", header_of[b] >file
    for (i = 1; i <= prototypes[b]; i++)
        put_prototype(prototype[b, i])
    if (prototypes[b] < names_of[b])
        put_code(code_of[b])
    print ".fi" >file
}

# Pages of the other names refer to that of the first. Returns all of them.
function put_links(b,    i, names, link) {
    names = name_of[b, 1]
    for (i = 2; i <= names_of[b]; i++) {
        names = names ", " name_of[b, i]
        link = out "/" name_of[b, i] ".3"
        print ".so man3/" name_of[b, 1] ".3" >link
        close(link)
    }
    return names
}

function has_parameter(b, name,    i) {
    for (i = 1; i <= prototypes[b]; i++)
        if (prototype[b, i] ~ "[ *]" name "(,|\\)|$)")
            return 1
    return 0
}

# A docstring must not speak of arguments that are not there; what is said for many functions may.
function check_params(b,    i, j, n, names) {
    for (i = 1; i <= params; i++) {
        n = split(param_name[i], names, ", ")
        for (j = 1; j <= n; j++)
            if (!has_parameter(b, names[j]))
                complain(name_of[b, 1] " has no argument " names[j])
    }
}

function drop_params(b, from,    i, kept) {
    kept = from
    for (i = from + 1; i <= params; i++)
        if (has_parameter(b, param_name[i])) {
            param_name[++kept] = param_name[i]
            param_text[kept] = param_text[i]
        }
    params = kept
}

# The docstring, and below it what is said for all of its part of the header.
function put_description(b,    text, title, own) {
    read_doc(doc_of[b])
    check_params(b)
    text = body
    title = title_of[section_of[b]]
    if (text_of[section_of[b]] != "" && kind_of[b] == "function") {
        own = params
        read_on(text_of[section_of[b]])
        drop_params(b, own)
        title = toupper(substr(title, 1, 1)) substr(title, 2)
        text = text ".SS \"" escape(title) "\"\n" body
    }
    put_section("DESCRIPTION", text)
}

function put_page(b,    names) {
    page = b
    names = put_links(b)
    begin_page(name_of[b, 1])
    print names " \\- " brief(doc_of[b]) >file
    put_synopsis(b)
    put_description(b)
    put_section("ARGUMENTS", params_of())
    put_section("RETURN VALUE", returns_of(b))
    put_section("ERRORS", errors_of())
    if (kind_of[b] == "function") {
        read_doc(head_of[header_of[b]])
        put_section("COMMON RULES", body)
    }
    put_section("SEE ALSO", see_also(b))
    close(file)
}

# ---- the page that lists them all ---------------------------------------------------------------

# The blocks of a header that are functions, or those that are not, one entry each.
function list_blocks(h, functions,    b, i, names) {
    for (b = 1; b <= blocks; b++) {
        if (header_of[b] != h || (kind_of[b] == "function") != functions)
            continue
        names = ""
        for (i = 1; i <= names_of[b]; i++)
            names = names (i > 1 ? ", " : "") "\\fB" name_of[b, i] "\\fR" (functions ? "()" : "")
        print ".TP\n" names "\n" guard(brief(doc_of[b])) >file
    }
}

function put_overview(    h) {
    begin_page("serry")
    print "serry \\- the functions of libserry, by header" >file
    print ".SH DESCRIPTION\nEach has a page of its own, and so have types and constants." >file
    print "\\fBserry\\fR(7) is an introduction." >file
    for (h = 1; h <= number_of_headers; h++) {
        body = ""
        put_lines(summary_of[headers[h]])
        printf ".SH \"<serry/%s>\"\n%s", headers[h], body >file
        list_blocks(headers[h], 1)
        list_blocks(headers[h], 0)
    }
    printf ".SH SEE ALSO\n\\fBserry\\fR(1),\n\\fBserry\\fR(7)\n" >file
    close(file)
}

END {
    end_block()
    for (b = 1; b <= blocks; b++)
        put_page(b)
    put_overview()
    exit failed
}
