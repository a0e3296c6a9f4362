# troff.awk - docstrings of C headers as text of man pages. Used by pages.awk.
#
# What it understands: paragraphs; lists whose items start with "- "; tables, which are indented
# lines, each a term, two blanks or more, and a text that may go on in lines of deeper indentation
# (what is indented and no such table stays as it is); `words in backticks`; and, at the start of a
# line, @param, @return and @retval, whose text goes on to the next such line or to an empty one.

# Takes no regular expression, for what a backslash means there differs from awk to awk.
function replace(s, from, to,    out, at) {
    while (at = index(s, from)) {
        out = out substr(s, 1, at - 1) to
        s = substr(s, at + length(from))
    }
    return out s
}

function trim(s) {
    gsub(/^[ \t\n]+|[ \t\n]+$/, "", s)
    return s
}

# ---- within a line ------------------------------------------------------------------------------

# Characters that troff would take for its own, or print as others.
function escape(s) {
    s = replace(s, "\\", "\\e")
    s = replace(s, "-", "\\-")
    s = replace(s, "'", "\\(aq")
    s = replace(s, "^", "\\(ha")
    return replace(s, "~", "\\(ti")
}

# No line of text may begin as a request to troff does.
function guard(s) {
    return s ~ /^[.']/ ? "\\&" s : s
}

# One word: functions refer to their pages, unless they are called with arguments; "_NO_SPACE", as
# it stands behind another code, is SERRY_ERR_NO_SPACE.
function word(s, call, after) {
    if (s ~ /^_[A-Z][A-Z_]+$/)
        s = "SERRY_ERR" s
    if (s in is_function && after != "(")
        return "\\fB" s "\\fR" (owner[s] == page ? "()" : "(3)")
    if (s ~ /^SERRY_|^NULL$/ || s in owner)
        return "\\fB" s "\\fR" (call ? "()" : "")
    return s (call ? "()" : "")
}

# A piece between two words, in which a backtick begins or ends what is printed in italics.
function between(s,    parts, n, i, out) {
    n = split(s, parts, "`")
    out = escape(parts[1])
    for (i = 2; i <= n; i++) {
        quoted = !quoted
        out = out (quoted ? "\\fI" : "\\fR") escape(parts[i])
    }
    return out
}

function mark(s,    out, w, call) {
    quoted = 0
    while (match(s, /[A-Za-z_][A-Za-z0-9_]*/)) {
        out = out between(substr(s, 1, RSTART - 1))
        w = substr(s, RSTART, RLENGTH)
        s = substr(s, RSTART + RLENGTH)
        call = s ~ /^\(\)/ && !quoted
        if (call)
            s = substr(s, 3)
        out = out (quoted ? escape(w) : word(w, call, substr(s, 1, 1)))
    }
    return guard(out between(s))
}

# ---- tables -------------------------------------------------------------------------------------

function add(s) {
    body = body s "\n"
}

function indent_of(s) {
    match(s, /^ */)
    return RLENGTH
}

# Splits the rows of `table`, lines that are indented, into row_term and row_text. Returns their
# number; 0: they are none.
function split_rows(table,    lines, n, i, rows, least) {
    n = split(table, lines, "\n")
    least = indent_of(lines[1])
    rows = 0
    for (i = 1; i <= n; i++) {
        if (indent_of(lines[i]) > least && rows > 0) {
            row_text[rows] = row_text[rows] "\n" trim(lines[i])
            continue
        }
        lines[i] = trim(lines[i])
        if (!match(lines[i], /[^ ]  +/))
            return 0
        row_term[++rows] = substr(lines[i], 1, RSTART)
        row_text[rows] = substr(lines[i], RSTART + RLENGTH)
        if (row_text[rows] ~ /  /)
            return 0
    }
    return rows
}

function put_table(table,    rows, lines, n, i) {
    rows = split_rows(table)
    for (i = 1; i <= rows; i++)
        put_entry(mark(row_term[i]), row_text[i])
    if (rows > 0)
        return
    add(".IP\n.nf")
    n = split(table, lines, "\n")
    for (i = 1; i <= n; i++)
        add(mark(substr(lines[i], indent_of(lines[1]) + 1)))
    add(".fi")
}

function put_lines(text,    lines, n, i) {
    n = split(text, lines, "\n")
    for (i = 1; i <= n; i++)
        add(mark(trim(lines[i])))
}

# A term, marked up, and lines of text.
function put_entry(term, text) {
    add((text == "" ? ".PP\n" : ".TP\n") guard(term))
    put_lines(text)
}

# ---- tags ---------------------------------------------------------------------------------------

# A tag with all its text. Those that return something may have several names, and no text.
function take_tag(text,    tag, names) {
    match(text, /^@[a-z]+/)
    tag = substr(text, RSTART, RLENGTH)
    text = substr(text, RLENGTH + 1)
    sub(/^\[[a-z,]*\]/, "", text)
    text = trim(text)
    if (tag == "@return") {
        returns = returns (returns == "" ? "" : "\n") text
        return
    }
    names = tag == "@param" ? "^[a-z_0-9]+(, [a-z_0-9]+)*" \
                            : "^SERRY_[A-Z_0-9]+(,[ \n]*SERRY_[A-Z_0-9]+)*"
    if ((tag != "@param" && tag != "@retval") || !match(text, names))
        complain(name_of[page, 1] ": " tag " is not understood here")
    if (tag == "@param") {
        param_name[++params] = substr(text, 1, RLENGTH)
        param_text[params] = trim(substr(text, RLENGTH + 1))
    } else {
        error_name[++errors] = substr(text, 1, RLENGTH)
        error_text[errors] = trim(substr(text, RLENGTH + 1))
        gsub(/[ \n]+/, " ", error_name[errors])
    }
}

# ---- a docstring --------------------------------------------------------------------------------

# Sets `body` to the text of a docstring, `returns` and the arrays of params and errors to its tags.
function read_doc(doc) {
    returns = ""
    params = errors = 0
    read_on(doc)
}

# The same, with the tags added to those that are there.
function read_on(doc,    lines, n, i, line, mode, held) {
    body = ""
    n = split(doc "\n", lines, "\n")
    for (i = 1; i <= n; i++) {
        line = lines[i]
        if (held != "" && (line == "" || line ~ /^@/ || (mode == "table" && line !~ /^ /))) {
            if (mode == "table")
                put_table(held)
            else
                take_tag(held)
            held = mode = ""
        }
        if (line == "") {
            mode = ""
        } else if (line ~ /^@/) {
            mode = "tag"
            held = line
        } else if (held != "") {
            held = held "\n" line
        } else if (line ~ /^- /) {
            mode = "item"
            add(".IP \\(bu 2\n" mark(substr(line, 3)))
        } else if (mode == "item" && line ~ /^  [^ ]/) {
            add(mark(substr(line, 3)))
        } else if (line ~ /^ /) {
            mode = "table"
            held = line
        } else {
            if (mode != "text" && body != "")
                add(".PP")
            mode = "text"
            add(mark(line))
        }
    }
}

# The first sentence, as a phrase: what a page is about.
function brief(doc,    s) {
    s = doc
    sub(/\n\n.*/, "", s)
    sub(/\n@.*/, "", s)
    gsub(/\n/, " ", s)
    if (match(s, /[.:;?]( |$)/))
        s = substr(s, 1, RSTART - 1)
    if (s !~ /^[^a-z]* / || s ~ /^A /)
        s = tolower(substr(s, 1, 1)) substr(s, 2)
    return escape(replace(s, "`", ""))
}
