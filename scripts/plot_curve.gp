# plot_curve.gp - draw the loss curve that `train --out` writes.
#
#   gnuplot -c plot_curve.gp CURVE.csv NAME TITLE SUBTITLE EVENTS.csv     makes NAME.svg and NAME.png
#
# EVENTS.csv marks where ranks died and joined; "": none.

if (ARGC != 5) {
    print "usage: gnuplot -c plot_curve.gp CURVE.csv NAME TITLE SUBTITLE EVENTS.csv"
    exit status 1
}

set datafile separator ","
stats ARG1 using 1:4 every ::1 nooutput
last_step = STATS_max_x
first_loss = STATS_max_y
stats ARG1 using 3 every ::1 nooutput
least_loss = STATS_min
stats ARG1 using ($1 == last_step ? $4 : NaN) every ::1 nooutput
last_loss = STATS_min

set title "{/:Bold ".ARG3."}\n{/*0.8 ".ARG4."}" enhanced
set xlabel "step"
set ylabel "loss (nats per character)"
set xrange [0:last_step * 1.02]
set yrange [floor(least_loss * 2) / 2.0:ceil(first_loss * 2) / 2.0]
set border 3 linecolor rgb "#606060"
set tics nomirror out textcolor rgb "#303030"
set grid linetype 1 linecolor rgb "#e4e4e4" linewidth 1
set key top right spacing 1.3 samplen 2
set label 1 sprintf("%.2f", last_loss) at last_step, last_loss offset -1, 0.9 right \
    textcolor rgb "#c2410c"
set style line 1 linecolor rgb "#1d4ed8" linewidth 2
set style line 2 linecolor rgb "#c2410c" linewidth 2

events = ARG5
low = floor(least_loss * 2) / 2.0
high = ceil(first_loss * 2) / 2.0
if (events ne "") {
    set style line 3 linecolor rgb "#b91c1c" linewidth 1.5 dashtype 2
    set style line 4 linecolor rgb "#15803d" linewidth 1.5 dashtype 2
    died(word) = word eq "died" ? 1 : NaN
    joined(word) = word eq "joined" ? 1 : NaN
    marks = "events using ($1 * died(strcol(3))):(low):(0):(high - low) every ::1 with vectors nohead linestyle 3 title 'a rank dies', ".\
            "events using ($1 * joined(strcol(3))):(low):(0):(high - low) every ::1 with vectors nohead linestyle 4 title 'a replacement joins', "
} else {
    marks = ""
}

set terminal svg size 900,500 font "DejaVu Sans,Arial,sans-serif,15" background rgb "white" rounded
set output ARG2.".svg"
curve = ARG1
eval "plot ".marks."curve using 1:3 every ::1 with lines linestyle 1 title 'training text', ".\
     "curve using 1:4 every ::1 with lines linestyle 2 title 'held-out text'"

set terminal pngcairo size 900,500 font "DejaVu Sans,12" background rgb "white" rounded
set output ARG2.".png"
replot
