# headers.awk - reads C headers into blocks. Used by pages.awk.
#
# A docstring and the declarations below it, up to an empty line, are a block. The first comment of
# a header is its head: a line "name.h - summary", and what holds for all of it. A comment that
# starts with dashes is a title; its text below the first line holds for all blocks up to the next.
#
# What there is of block b of `blocks`:
#   name_of[b, i], names_of[b]      the functions, types, variables and constants that it declares
#   prototype[b, i], prototypes[b]  its functions, each on one line
#   kind_of[b]                      "function" if it has any, else what it has
#   doc_of[b], code_of[b]           as they stand there, without the stars
#   header_of[b], section_of[b]     where: the key of head_of, summary_of; of title_of, text_of

# While headers are read, and while the page of a block is written.
function complain(what) {
    print "scripts/man: " (page ? header_of[page] : header) ": " what >"/dev/stderr"
    failed = 1
}

# ---- declarations -------------------------------------------------------------------------------

function declare(name, kind) {
    name_of[blocks, ++names_of[blocks]] = name
    owner[name] = blocks
    if (kind == "function")
        is_function[name] = 1
    if (kind == "function" || kind_of[blocks] == "")
        kind_of[blocks] = kind
}

# One declaration, on one line; what has no name of ours has no page.
function declare_statement(s) {
    if (s ~ /^typedef/ && match(s, /\(\*serry_[a-z0-9_]+/))
        declare(substr(s, RSTART + 2, RLENGTH - 2), "type")
    else if (s ~ /^typedef/ && match(s, /serry_[a-z0-9_]+$/))
        declare(substr(s, RSTART), "type")
    else if (s ~ /^extern const/ && match(s, /serry_[a-z0-9_]+$/))
        declare(substr(s, RSTART), "variable")
    else if (s !~ /^typedef/ && match(s, /serry_[a-z0-9_]+\(/)) {
        declare(substr(s, RSTART, RLENGTH - 1), "function")
        prototype[blocks, ++prototypes[blocks]] = s
    }
}

function without_comments(s,    at, out) {
    while (at = index(s, "/*")) {
        out = out substr(s, 1, at - 1)
        s = substr(s, at)
        s = substr(s, index(s, "*/") + 2)
    }
    return out s
}

# A declaration ends at a semicolon outside braces; a function that is inline, with its body.
function declare_all(text,    i, c, depth, s) {
    gsub(/[ \t\n]+/, " ", text)
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        depth += (c == "{") - (c == "}")
        if (depth > 0 || (c != ";" && (c != "}" || s !~ /^ *static inline/))) {
            s = s c
            continue
        }
        sub(/^ *static inline /, "", s)
        if (c == "}")
            sub(/ *\{.*/, "", s)
        declare_statement(trim(s))
        s = ""
    }
}

# The code of a block, without lines for the preprocessor. Constants with a docstring are declared.
function declare_block(code, doc,    lines, n, i, text) {
    n = split(code, lines, "\n")
    for (i = 1; i <= n; i++) {
        if (lines[i] !~ /^#/)
            text = text lines[i] "\n"
        else if (doc != "" && code !~ /typedef/ && match(lines[i], /^#define SERRY_[A-Z0-9_]+ /))
            declare(trim(substr(lines[i], 9, RLENGTH - 8)), "constant")
    }
    declare_all(without_comments(text))
}

# A list of which something is made, "#define ..._MAP(X)", belongs to what is made of it, below.
function end_block() {
    if (code ~ /^#define SERRY_[A-Z_]*MAP\(X\)/) {
        list_doc = doc
        list_code = code "\n\n"
    } else if (code != "") {
        blocks++
        declare_block(code, doc)
        header_of[blocks] = header
        section_of[blocks] = section
        doc_of[blocks] = doc != "" ? doc : list_doc
        code_of[blocks] = list_code code
        if (names_of[blocks] == 0)
            blocks--
        else if (doc_of[blocks] == "")
            complain(name_of[blocks, 1] " has no docstring")
        list_doc = list_code = ""
    }
    code = doc = ""
}

# ---- comments -----------------------------------------------------------------------------------

function after_first_paragraph(s) {
    return index(s, "\n\n") ? substr(s, index(s, "\n\n") + 2) : ""
}

function end_comment(s) {
    sub(/^\n+/, "", s)
    sub(/[ \n]+$/, "", s)
    if (!(header in head_of)) {
        head_of[header] = after_first_paragraph(s)
        sub(/\n\n.*/, "", s)
        sub(/^[a-z.]* - /, "", s)
        summary_of[header] = s
    } else if (s ~ /^----/) {
        section++
        text_of[section] = after_first_paragraph(s)
        sub(/\n.*/, "", s)
        gsub(/^-+ | -+$/, "", s)
        title_of[section] = s
    } else {
        doc = s
    }
}

# ---- lines --------------------------------------------------------------------------------------

FNR == 1 {
    end_block()
    header = FILENAME
    sub(/.*\//, "", header)
    headers[++number_of_headers] = header
    section++
}

# Comments inside of declarations are code here.
depth == 0 && !in_comment && /^\/\*/ {
    end_block()
    in_comment = 1
    comment = ""
    sub(/^\/\*+/, " *")
}

in_comment {
    in_comment = $0 !~ /\*\/$/
    sub(/ *\*\/$/, "")
    sub(/^ \* ?/, "")
    comment = comment "\n" $0
    if (!in_comment)
        end_comment(comment)
    next
}

/^\/\/ clang-format/ || /^extern "C"/ {
    next
}

/^[ \t]*$/ && depth == 0 {
    end_block()
    next
}

{
    code = code (code == "" ? "" : "\n") $0
    line = $0
    gsub(/\/\*[^*]*\*\//, "", line)
    depth += gsub(/\{/, "", line) - gsub(/\}/, "", line)
    if (depth < 0)
        depth = 0
}
