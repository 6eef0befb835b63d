#!/usr/bin/env perl
# Plants one fault in a tree:  plant.pl TREE FAULT [--check]
#
# Each old text must occur exactly once in its file, else the fault is stale: exit 3. With --check
# nothing is written. What is written is printed: "plants", "caught-by" and the files touched.
use strict;
use warnings;

my ($tree, $fault, $mode) = @ARGV;
die "usage: plant.pl TREE FAULT [--check]\n" unless defined $fault;
my $is_check = defined $mode && $mode eq '--check';

sub stop {
    my ($code, $text) = @_;
    print STDERR "$fault: $text\n";
    exit $code;
}

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or stop(3, "fault file is stale: cannot read $path: $!");
    local $/;
    my $text = <$file>;
    close $file;
    return $text;
}

my $text = slurp($fault);
my ($head, $rest) = split /^(?=file:)/m, $text, 2;
stop(4, 'names no file') unless defined $rest;
for my $key ('plants', 'caught-by') {
    my ($value) = $head =~ /^\Q$key\E:[ \t]*(\S.*?)[ \t]*$/m
        or stop(4, "has no line \"$key: ...\"");
    print "$key: $value\n";
}

my %content;
while ($rest =~ /\G\s*file:[ \t]*(\S+)[ \t]*\n<<<<\n(.*?)^====\n(.*?)^>>>>(?:\n|\z)/gcms) {
    my ($path, $old, $new) = ($1, $2, $3);
    stop(4, 'has an empty old text') unless length $old;
    $content{$path} //= slurp("$tree/$path");
    my $first = index $content{$path}, $old;
    stop(3, "fault file is stale: its old text is not in $path") if $first < 0;
    stop(3, "fault file is stale: its old text is in $path more than once")
        if index($content{$path}, $old, $first + 1) >= 0;
    substr $content{$path}, $first, length $old, $new;
}
stop(4, 'has a block that cannot be read') unless substr($rest, pos($rest) // 0) =~ /\A\s*\z/;

for my $path (sort keys %content) {
    print "file: $path\n";
    next if $is_check;
    # A new file, so that its time is new and nothing else that links to the old one changes.
    unlink "$tree/$path";
    open my $file, '>:raw', "$tree/$path" or stop(4, "cannot write $path: $!");
    print {$file} $content{$path};
    close $file or stop(4, "cannot write $path: $!");
}
