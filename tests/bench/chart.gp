# The chart of `make bench`: gnuplot -e "data='...'; chart='...'" chart.gp
# data: label, MB/s one way, MB/s both ways, us for 1 byte, us for 4,096 bytes

set terminal svg size 860,660 font "sans-serif,13" background rgb "white"
set output chart
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.85 noborder
set boxwidth 0.9
set datafile separator tab
set border 3 linecolor rgb "#888888"
set grid ytics linecolor rgb "#dddddd" linetype 1
set tics nomirror textcolor rgb "#333333"
set xtics font ",11"
set key top left reverse Left samplen 1.5 horizontal
set yrange [0:*]
set offsets 0, 0, graph 0.2, 0
set multiplot layout 2,1 margins 0.07,0.98,0.1,0.94 spacing 0.2

set title "Throughput of one tunnel, MB/s (more is better)"
plot data using 2:xtic(1) title "one way" linecolor rgb "#2b6cb0", \
     data using 3 title "both ways at once" linecolor rgb "#90cdf4"

set title "Round trip, back to back, microseconds (less is better)"
plot data using 4:xtic(1) title "1 byte" linecolor rgb "#2f855a", \
     data using 5 title "4,096 bytes" linecolor rgb "#9ae6b4"
unset multiplot
