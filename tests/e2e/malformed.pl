# Makes bad checkpoints out of good ones, for 540-malformed.t.
#
#	perl malformed.pl checkpoints GOOD OUT >LIST	headers, indexes, configs, tensors of a mixtral checkpoint
#	perl malformed.pl families DIR OUT >LIST	what only other families have: DIR/fused, DIR/qwen2, DIR/qwen3, DIR/olmoe
#	perl malformed.pl text GOOD OUT >LIST		tokenizer.json and what lies beside it
#	perl malformed.pl shards SET OUT >LIST		manifests and data files of a shard set
#	perl malformed.pl policies POLICY OUT >LIST	policies and placements for the model of that policy
#	perl malformed.pl hardware OUT >LIST		hardware profiles
#	perl malformed.pl hosts OUT >LIST		hosts files
#	perl malformed.pl numbers GOOD OUT >LIST	weights that are no numbers, which is no fault of the file: WANT is `any`
#	perl malformed.pl flip SET LAYER EXPERT		change a byte of this expert
#	perl malformed.pl epoch SET N			say that this is epoch N
#	perl malformed.pl garbage SOCKET		send all sorts of things to a server
#	perl malformed.pl fake SOCKET MODE		be a server that is none, until killed
#
# LIST has a line per case, fields divided by tabs: WANT WITH PATH WORDS PATTERN.  WANT is `no`, each of the
# programs WITH must refuse it with a message that matches PATTERN, or `yes`, they must accept it: changes that are
# none, which show that what is refused is refused for its fault.
use strict;
use warnings;
use JSON::PP;
use Storable 'dclone';
use File::Path 'make_path';

my ($what, @args) = @ARGV;
my $out = $args[-1];
my $json = JSON::PP->new->canonical->ascii;
my $count = 0;
my $with = ''; # what the next rows are tried with

# A number as text that Perl would print another way, or anything else that is to stand in JSON as it is.
sub R { return "\@\@" . unpack('H*', $_[0]) . "\@\@" }
sub text { my $t = $json->encode($_[0]); $t =~ s/"\@\@([0-9a-f]*)\@\@"/pack('H*', $1)/ge; return $t }
sub slurp { open my $f, '<:raw', $_[0] or die "$_[0]: $!\n"; local $/; my $t = <$f>; return $t }
sub spew { open my $f, '>:raw', $_[0] or die "$_[0]: $!\n"; print $f $_[1]; close $f or die "$_[0]: $!\n" }
sub fold { my $d = sprintf '%s/%03d', $out, ++$count; make_path($d); return $d }
sub row {
	my ($want, $d, $words, $pattern) = @_;
	$words =~ s{\\}{/}g;
	$words =~ s{([^ -~])}{sprintf "<%x>", ord $1}ge;
	$words = substr($words, 0, 70) . "..." if length $words > 76;
	print join("\t", $want, $with, $d, $words, $pattern // ""), "\n";
}

# DIR with the same files as FROM, each a hard link, without those named.
sub same_files {
	my ($from, $dir, @without) = @_;
	opendir my $h, $from or die "$from: $!\n";
	for my $n (grep { -f "$from/$_" } readdir $h) {
		next if grep { $_ eq $n } @without;
		link "$from/$n", "$dir/$n" or die "$dir/$n: $!\n";
	}
}

# ---- safetensors ----

sub st_read {
	my $f = slurp($_[0]);
	my $n = unpack "Q<", $f;
	my $h = $json->decode(substr $f, 8, $n);
	delete $h->{__metadata__};
	return [map { { name => $_, dtype => $h->{$_}{dtype}, shape => $h->{$_}{shape},
	                data => substr($f, 8 + $n + $h->{$_}{data_offsets}[0], $h->{$_}{data_offsets}[1] - $h->{$_}{data_offsets}[0]) } }
	        sort { $h->{$a}{data_offsets}[0] <=> $h->{$b}{data_offsets}[0] || $a cmp $b } keys %$h];
}

# Tensors one after the other.  A tensor may say what its entry says instead: dtype, shape, at (data_offsets), entry.
# o: extra (text put into the header), pad (bytes the header's length is a multiple of), header (sub: text -> text),
# length (of the header, as said), bytes (sub: the whole file -> the whole file).
sub st_bytes {
	my ($tensors, %o) = @_;
	my ($at, $data, @entries) = (0, '');
	for my $t (@$tensors) {
		my $end = $at + length $t->{data};
		my $e = $t->{entry} // { dtype => $t->{dtype}, shape => $t->{shape}, data_offsets => $t->{at} // [R($at), R($end)] };
		push @entries, text($t->{name}) . ':' . text($e);
		$data .= $t->{data};
		$at = $end;
	}
	my $h = '{' . join(',', $o{extra} // (), @entries) . '}';
	my $pad = $o{pad} // 8;
	$h .= ' ' while $pad == 1 ? length($h) % 2 == 0 : length($h) % $pad;
	$h = $o{header}->($h) if $o{header};
	my $b = pack('Q<', $o{length} // length $h) . $h . $data;
	return $o{bytes} ? $o{bytes}->($b) : $b;
}

# ---- checkpoints ----

my ($good, $config, $tensors);
sub base { ($good) = @_; $config = $json->decode(slurp("$good/config.json")); $tensors = st_read("$good/model.safetensors") if -e "$good/model.safetensors" }

# The weights, changed: sub gets the tensors, and returns what st_bytes takes besides.
sub weights {
	my ($want, $words, $pattern, $change) = @_;
	my $d = fold();
	my $t = [map { {%$_} } @$tensors];
	my %o = $change ? $change->($t) : ();
	same_files($good, $d, 'model.safetensors');
	spew("$d/model.safetensors", $o{all} // st_bytes($t, %o));
	row($want, $d, $words, $pattern);
	return $d;
}
sub bad_weights { weights('no', @_) }

# Keys of the config, changed: sub gets it.  A sub that returns text makes that the whole file.
sub config_with {
	my ($want, $words, $pattern, $change) = @_;
	my $d = fold();
	my $c = dclone($config);
	my $r = $change->($c);
	same_files($good, $d, 'config.json');
	spew("$d/config.json", defined $r && !ref $r && $r ne '' ? $r : text($c));
	row($want, $d, $words, $pattern);
}
sub bad_config { config_with('no', @_) }

# Any file: sub gets the folder, which has all files of the good one.
sub folder { my ($want, $words, $pattern, $change) = @_; my $d = fold(); same_files($good, $d); $change->($d); row($want, $d, $words, $pattern) }
sub put { my ($path, $t) = @_; unlink $path; spew($path, $t) }

sub find { my ($t, $re) = @_; my ($x) = grep { $_->{name} =~ $re } @$t; die "no tensor $re\n" unless $x; return $x }

# A checkpoint of two files with an index: sub gets the index and the folder.
sub indexed {
	my ($want, $words, $pattern, $change) = @_;
	my $d = fold();
	my @half = ([], []);
	push @{ $half[$_->{name} =~ /layers\.1\./ ? 1 : 0] }, {%$_} for @$tensors;
	my @files = map { sprintf 'model-%05d-of-00002.safetensors', $_ } 1, 2;
	my %map = map { my $i = $_; map { ($_->{name} => $files[$i]) } @{ $half[$i] } } 0, 1;
	my $index = { metadata => { total_size => 1 }, weight_map => \%map };
	same_files($good, $d, 'model.safetensors');
	my $r = $change ? $change->($index, $d, \@half) : undef;
	spew("$d/$files[$_]", st_bytes($half[$_])) for 0, 1;
	unlink "$d/$index->{drop}" if $index->{drop};
	spew("$d/model.safetensors.index.json", defined $r && !ref $r && $r ne '' ? $r : text($index));
	row($want, $d, $words, $pattern);
}
sub bad_index { indexed('no', @_) }

my @broken_json = (
	['empty', sub { '' }], ['cut off', sub { substr $_[0], 0, length($_[0]) / 2 }], ['an array', sub { "[$_[0]]" }],
	['two values', sub { "$_[0] {}" }], ['not UTF-8', sub { my $t = $_[0]; $t =~ s/"/"\xff\xfe/; $t }],
	['with \u0000', sub { my $t = $_[0]; $t =~ s/"/"\\u0000/; $t }], ['with a byte order mark', sub { "\xef\xbb\xbf$_[0]" }],
	['with a bare NUL', sub { "$_[0]\0" }], ['nested 100000 deep', sub { my $t = $_[0]; my $d = '[' x 100000; $t =~ s/^\{/{"x":$d,/; $t }],
	['with a comment', sub { my $t = $_[0]; $t =~ s/^\{/{ \/\/ x\n/; $t }], ['a number alone', sub { '7' }],
);

sub headers {
	$with = 'info cut score';
	my $f = 'model\.safetensors';
	weights('yes', 'a file that is written again as it was');
	weights('yes', 'a header of odd length', undef, sub { (pad => 1) });
	weights('yes', 'a header with metadata', undef, sub { (extra => '"__metadata__":{"format":"pt"}') });
	weights('yes', 'a header whose names are out of order', undef, sub { (header => sub { my $h = $json->decode($_[0]); my $t = text({%$h}); $t . ' ' x (8 - length($t) % 8) }) });

	bad_weights('an empty file', $f, sub { (all => '') });
	bad_weights('a file of 7 bytes', $f, sub { (all => "\1\0\0\0\0\0\0") });
	bad_weights('a file of zeros', $f, sub { (all => "\0" x 4096) });
	bad_weights('header length 0', $f, sub { (length => 0) });
	bad_weights('header length 1', $f, sub { (length => 1) });
	bad_weights('header length beyond the file', $f, sub { (length => 90_000_000) });
	bad_weights('header length past the last byte by one', $f, sub { (bytes => sub { substr($_[0], 0, 8) . substr($_[0], 8, unpack('Q<', $_[0]) - 1) }) });
	bad_weights("header length $_", $f, do { my $n = $_; sub { (bytes => sub { my $b = $_[0]; substr($b, 0, 8) = pack('Q<', $n); $b }) } })
		for ~0, ~0 - 7, ~0 - 8, 1 << 63, (1 << 32) + 8;
	bad_weights('a header cut off', $f, sub { (bytes => sub { my $b = $_[0]; substr($b, 0, 8) = pack('Q<', unpack('Q<', $b) - 9); $b }) });
	my $d = bad_weights('a header over 100 MB', $f, sub { (bytes => sub { my $b = $_[0]; substr($b, 0, 8) = pack('Q<', 100_000_001); $b }) });
	truncate "$d/model.safetensors", 200_000_000 or die;
	for (@broken_json) {
		my ($words, $break) = @$_;
		bad_weights("a header: $words", $f, sub { (header => $break) });
	}
	bad_weights('a name twice', $f, sub { my $t = $_[0]; push @$t, { %{ $t->[3] } }; () });
	bad_weights('a name twice, the second time escaped', $f, sub { my $t = $_[0]; my $n = $t->[3]{name}; (my $x = text($n)) =~ s/^"(.)/sprintf '"\\u%04x', ord $1/e; (header => sub { my $h = $_[0]; $h =~ s/^\{/{$x:{"dtype":"U8","shape":[0],"data_offsets":[0,0]},/; $h }) });
	bad_weights('metadata that is no object', $f, sub { (extra => '"__metadata__":[1]') });
	bad_weights('metadata whose values are no strings', $f, sub { (extra => '"__metadata__":{"format":1}') });
	bad_weights('an entry that is a string', $f, sub { $_[0][2]{entry} = 'x'; () });
	bad_weights('an entry that is an array', $f, sub { $_[0][2]{entry} = []; () });
	for my $k ('dtype', 'shape', 'data_offsets') {
		my $with = sub { my ($t, $v) = @_; my $n = length $t->{data}; my $e = { dtype => $t->{dtype}, shape => $t->{shape}, data_offsets => [0, R($n)] };
		                 defined $v ? ($e->{$k} = $v) : delete $e->{$k}; $t->{entry} = $e; () };
		bad_weights("an entry without $k", $f, sub { $with->($_[0][0]) });
		bad_weights("$k: $_->[0]", $f, do { my $v = $_->[1]; sub { $with->($_[0][0], $v) } })
			for ['a number', 7], ['an object', {}], ['null', R('null')], ['an array of strings', ['a', 'b']], ['nested', [[0], [0]]], ['a string', 'x' x 300];
	}
	bad_weights("data_offsets $_", $f, do { my $v = $_; sub { $_[0][0]{at} = R($v); () } })
		for '[0]', '[]', '[0,0,0]', '[-8,0]', '[0,-1]', '[8,0]', '[0.5,8.5]', '[0,1e300]', '[0,18446744073709551616]', '[18446744073709551615,18446744073709551615]',
		    '[9223372036854775807,9223372036854775808]', '[0,9007199254740993]', '[true,false]', '[0,1e999]';
	bad_weights('offsets that all are 2^63 too high', $f, sub { my $at = 0; for (@{ $_[0] }) { my $n = length $_->{data}; $_->{at} = [R("9223372036854775808"), R("9223372036854775808")]; $at += $n } () });
	bad_weights('a hole before the first tensor', $f, sub { (bytes => sub { my $b = $_[0]; my $n = 8 + unpack 'Q<', $b; my $h = substr $b, 8, $n - 8; my $x = $json->decode($h);
		$_->{data_offsets} = [map { R($_ + 8) } @{ $_->{data_offsets} }] for values %$x; my $t = text($x); $t .= ' ' while length($t) % 8; pack('Q<', length $t) . $t . ("\0" x 8) . substr($b, $n) }) });
	bad_weights('a hole between two tensors', $f, sub { my $t = $_[0]; splice @$t, 3, 0, { name => 'hole', dtype => 'U8', shape => [8], data => "\0" x 8 }; (header => sub { my $h = $_[0]; $h =~ s/"hole":\{[^}]*\},//; $h .= ' ' while length($h) % 8; $h }) });
	bad_weights('two tensors that overlap', $f, sub { my $t = $_[0]; my ($a, $b) = grep { length $t->[$_]{data} == length $t->[$_ + 1]{data} } 0 .. $#$t - 1; my $at = 0; $at += length $t->[$_]{data} for 0 .. $a - 1; $t->[$a + 1]{at} = [R($at), R($at + length $t->[$a]{data})]; () });
	bad_weights('two tensors that overlap by one byte', $f, sub { my $t = $_[0]; my $n = length $t->[0]{data}; $t->[1]{at} = [R($n - 1), R($n - 1 + length $t->[1]{data})]; () });
	bad_weights('a file one byte short', $f, sub { (bytes => sub { substr $_[0], 0, -1 }) });
	bad_weights('a file cut in half', $f, sub { (bytes => sub { substr $_[0], 0, length($_[0]) / 2 }) });
	bad_weights('a file one byte long', $f, sub { (bytes => sub { "$_[0]x" }) });
	bad_weights("a shape $_", $f, do { my $v = $_; sub { $_[0][0]{shape} = R($v); () } })
		for '[]', '[1]', '[-1,-1]', '[0,0]', '[1.5,2]', '["4",4]', '[4294967296,4294967296]', '[9223372036854775807,2]', '[18446744073709551615]', '[1e300]', '[4294967296,4294967296,4294967296,4294967296]',
		    '[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]', '[' . join(',', (1) x 100000) . ']', '[null]', '[3037000500,3037000500]';
	bad_weights("dtype $_", "$f", do { my $v = $_; sub { $_[0][0]{dtype} = $v; () } }) for 'Q4', 'bf16', '', 'BF16 ', 'F32F32', "BF16\x{1F600}", "B\nF";
}

sub kinds_of_file {
	$with = 'info cut score';
	folder('no', 'weights that are a folder', 'safetensors', sub { unlink "$_[0]/model.safetensors"; mkdir "$_[0]/model.safetensors" });
	folder('no', 'weights that are a pipe', 'safetensors', sub { unlink "$_[0]/model.safetensors"; system 'mkfifo', "$_[0]/model.safetensors" });
	folder('no', 'weights that are a device', 'safetensors', sub { unlink "$_[0]/model.safetensors"; symlink '/dev/zero', "$_[0]/model.safetensors" });
	folder('no', 'weights that are a link to nothing', 'safetensors', sub { unlink "$_[0]/model.safetensors"; symlink 'nothing', "$_[0]/model.safetensors" });
	folder('no', 'weights that are a link to themselves', 'safetensors', sub { unlink "$_[0]/model.safetensors"; symlink 'model.safetensors', "$_[0]/model.safetensors" });
	folder('no', 'no weights', 'safetensors', sub { unlink "$_[0]/model.safetensors" });
	folder('yes', 'weights and config that are links, as in a download cache', undef, sub {
		for my $n ('model.safetensors', 'config.json') { mkdir "$_[0]/blobs"; rename "$_[0]/$n", "$_[0]/blobs/$n"; symlink "blobs/$n", "$_[0]/$n" } });
	folder('no', 'no config', 'config\.json', sub { unlink "$_[0]/config.json" });
	folder('no', 'a config that is a folder', 'config\.json', sub { unlink "$_[0]/config.json"; mkdir "$_[0]/config.json" });
	folder('no', 'a config that is a pipe', 'config\.json', sub { unlink "$_[0]/config.json"; system 'mkfifo', "$_[0]/config.json" });
	folder('no', 'a config that never ends', 'config\.json', sub { unlink "$_[0]/config.json"; symlink '/dev/zero', "$_[0]/config.json" });
	folder('no', 'a config of 4 GB', 'config\.json', sub { put("$_[0]/config.json", '{'); truncate "$_[0]/config.json", 4 << 30 });
	folder('no', 'a generation config that is a pipe', 'generation_config\.json', sub { unlink "$_[0]/generation_config.json"; system 'mkfifo', "$_[0]/generation_config.json" });
}

sub indexes {
	$with = 'info cut score';
	my $i = 'index\.json';
	my ($name) = map { $_->{name} } grep { $_->{name} =~ /layers\.0\..*q_proj/ } @$tensors;
	indexed('yes', 'two files and an index');
	bad_index("an index: $_->[0]", $i, do { my $break = $_->[1]; sub { my ($x, $d) = @_; my $t = $break->(text($x)); $t eq '' ? ' ' : $t } }) for @broken_json;
	bad_index("a file called $_->[1]", $_->[2] // $i, do { my $v = $_->[0]; sub { $_[0]{weight_map}{$name} = $v; () } })
		for ['../x', '../x'], ['/etc/passwd', '/etc/passwd'], ['sub/x.safetensors', 'sub/x.safetensors'], ['', 'nothing'], ['.', '.'], ['..', '..'],
		    [R("\"a\\u0000b\""), 'a\u0000b'], [R('7'), '7 (a number)'], [R('null'), 'null'], [['x'], 'x in an array'],
		    ['x' x 5000, 'by 5000 letters'], ["a\nb", 'a newline b'], ["a\x{1b}[2Jb", 'an escape'], ['none.safetensors', 'none.safetensors, which is not there', 'none\.safetensors'],
		    ['config.json', 'config.json', 'config\.json'];
	bad_index('a file that is a folder', 'folder\.safetensors', sub { mkdir "$_[1]/folder.safetensors"; $_[0]{weight_map}{$name} = 'folder.safetensors'; () });
	bad_index('a file that is a pipe', 'pipe\.safetensors', sub { system 'mkfifo', "$_[1]/pipe.safetensors"; $_[0]{weight_map}{$name} = 'pipe.safetensors'; () });
	bad_index('a file that is missing', 'model-00002-of-00002', sub { $_[0]{drop} = 'model-00002-of-00002.safetensors'; () });
	bad_index('no weight_map', $i, sub { delete $_[0]{weight_map}; () });
	bad_index("weight_map $_", $i, do { my $v = $_; sub { $_[0]{weight_map} = R($v); () } }) for '[]', '{}', 'null', '7', '"x"';
	bad_index('a tensor that its file does not have', 'not\.there', sub { $_[0]{weight_map}{'not.there'} = 'model-00001-of-00002.safetensors'; () });
	bad_index('a tensor said to be in the other file', quotemeta($name), sub { $_[0]{weight_map}{$name} = 'model-00002-of-00002.safetensors'; () });
	bad_index('a tensor left out', quotemeta($name), sub { delete $_[0]{weight_map}{$name}; () });
	bad_index('a tensor in both files', quotemeta($name), sub { my ($x, $d, $half) = @_; my ($t) = grep { $_->{name} eq $name } @{ $half->[0] }; push @{ $half->[1] }, $t; () });
	bad_index('the same name twice', $i, sub { my $t = text($_[0]); $t =~ s/("weight_map":\{)/$1"$name":"model-00001-of-00002.safetensors",/; $t });
}

my @bad_sizes = ('0', '-1', '1.5', '"8"', '1e300', '-1e300', '1099511627776', '2147483648', '2147483647', '18446744073709551616', '[]', '{}', 'true', 'NaN', '1e999', '""');
sub configs {
	$with = 'score cut plan';
	my $f = 'config\.json';
	bad_config('a config with keys nobody knows', "$f.*unheard", sub { $_[0]{unheard} = { of => [1] }; () });
	bad_config("a config: $_->[0]", $f, do { my $break = $_->[1]; sub { my $t = $break->(text($_[0])); $t eq '' ? ' ' : $t } }) for @broken_json;
	bad_config('a config with a key twice', $f, sub { my $t = text($_[0]); $t =~ s/^\{/{"hidden_size":64,/; $t });
	$with = 'score info';
	for my $k ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'num_key_value_heads', 'vocab_size', 'num_local_experts', 'num_experts_per_tok') {
		bad_config("$k $_", '(config\.json.*|safetensors.*)', do { my $v = $_; sub { $_[0]{$k} = R($v); () } }) for @bad_sizes;
	}
	bad_config("max_position_embeddings $_", $f, do { my $v = $_; sub { $_[0]{max_position_embeddings} = R($v); () } }) for grep { $_ ne '2147483647' } @bad_sizes;
	bad_config("head_dim $_", '(config\.json|safetensors)', do { my $v = $_; sub { $_[0]{head_dim} = R($v); () } }) for @bad_sizes, '7';
	# A key that is left out has its family's value, which is another one than these weights are made for.
	for my $k ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size') {
		bad_config("no $k", 'config\.json|tensor [a-z]', sub { delete $_[0]{$k}; () });
		bad_config("$k null", 'config\.json|tensor [a-z]', sub { $_[0]{$k} = R('null'); () });
	}
	$with = 'score plan';
	bad_config("rms_norm_eps $_", $f, do { my $v = $_; sub { $_[0]{rms_norm_eps} = R($v); () } }) for '-1', '"x"', '1e300', '[]', 'NaN';
	bad_config("rope_theta $_", $f, do { my $v = $_; sub { delete $_[0]{rope_parameters}; $_[0]{rope_theta} = R($v); () } }) for '0', '-1', '"x"', '[]', '1e999';
	bad_config("tie_word_embeddings $_", $f, do { my $v = $_; sub { $_[0]{tie_word_embeddings} = R($v); () } }) for '"no"', '2', '[]';
	bad_config('tied embeddings of a checkpoint with a head of its own... and no bool', $f, sub { $_[0]{tie_word_embeddings} = {}; () });
	bad_config('more experts a token than experts', $f, sub { $_[0]{num_experts_per_tok} = $_[0]{num_local_experts} + 1; () });
	bad_config('heads that key-value heads do not divide', $f, sub { $_[0]{num_key_value_heads} = $_[0]{num_attention_heads} - 1; () });
	bad_config('a hidden size that heads do not divide', '(config\.json|safetensors)', sub { delete $_[0]{head_dim}; $_[0]{num_attention_heads} = 7; $_[0]{num_key_value_heads} = 7; () });
	bad_config("rope_scaling $_", $f, do { my $v = $_; sub { delete $_[0]{rope_parameters}; $_[0]{rope_scaling} = R($v); () } })
		for '{"type":"yarn","factor":4.0}', '{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32768}', '{"type":"dynamic","factor":2}', '{"rope_type":"llama3","factor":8}', '{"rope_type":"longrope"}',
		    '{"type":"linear","factor":0}', '{"type":"linear","factor":-1}', '{"type":"linear","factor":"x"}', '{"type":"linear"}', '{"type":7}', '"yarn"', '[1]', '{"type":"linear","factor":1e999}';
	bad_config("rope_parameters $_", $f, do { my $v = $_; sub { delete $_[0]{rope_theta}; $_[0]{rope_parameters} = R($v); () } })
		for '{"rope_type":"yarn","factor":4.0,"rope_theta":10000.0}', '7', '{"rope_type":"default","rope_theta":"x"}', '{"rope_type":"default","rope_theta":-1}';
	bad_config("quantization_config $_", 'config\.json.*quantization_config', do { my $v = $_; sub { $_[0]{quantization_config} = R($v); () } }) for '{"quant_method":"hqq"}', '{"quant_method":7}', '{"quant_method":"fp8","weight_block_size":[0,1]}', '{"quant_method":"gptq","bits":1e300}', '{"quant_method":"compressed-tensors","config_groups":[]}', '{"bits":4}', '7', '"x"';
	bad_config("hidden_act $_", 'config\.json.*(hidden_act|activation)', do { my $v = $_; sub { $_[0]{hidden_act} = R($v); () } }) for '"gelu"', '"SiLU"', '7', '""';
	bad_config("model_type $_", 'config\.json.*model_type', do { my $v = $_; sub { $_[0]{model_type} = R($v); () } }) for '"deepseek_v3"', '"llama"', '7', '""', 'null', '"mixtral\\u0020"', '"' . 'x' x 5000 . '"', '"a\\nb\\u001b[2J"';
	bad_config('no model_type', 'config\.json.*model_type', sub { delete $_[0]{model_type}; () });
	bad_config('num_experts and num_local_experts that differ', 'config\.json.*num_(local_)?experts', sub { $_[0]{num_experts} = $_[0]{num_local_experts} * 2; () });
	bad_config("eos_token_id $_", $f, do { my $v = $_; sub { $_[0]{eos_token_id} = R($v); () } }) for '-2', '"x"', '1e300', '1.5', '[1,"x"]', '[[1]]', '{}', '[' . join(',', 0 .. 40) . ']';
	bad_config("bos_token_id $_", $f, do { my $v = $_; sub { $_[0]{bos_token_id} = R($v); () } }) for '-2', '"x"', '1e300', '1.5', '[]';
	bad_config("sliding_window $_", $f, do { my $v = $_; sub { $_[0]{sliding_window} = R($v); () } }) for '-1', '"x"', '1e300', '1.5', '0';
	$with = 'info score';
	bad_config('a million layers', '(config\.json|safetensors)', sub { $_[0]{num_hidden_layers} = 1000000; () });
	bad_config('a million experts', '(config\.json|safetensors)', sub { $_[0]{num_local_experts} = 1000000; () });
	$with = 'info plan';
	bad_config('a million experts in all', 'config\.json.*experts', sub { $_[0]{num_hidden_layers} = 4096; $_[0]{num_local_experts} = 257; () });
	$with = 'info score';
	bad_config('another vocabulary', 'embed_tokens|lm_head', sub { $_[0]{vocab_size} += 8; () });
	bad_config('one layer less than there are weights', 'layers', sub { $_[0]{num_hidden_layers} -= 1; () });
	bad_config('one layer more than there are weights', 'layers', sub { $_[0]{num_hidden_layers} += 1; () });
	bad_config('one expert less than there are weights', 'experts|gate', sub { $_[0]{num_local_experts} -= 1; () });
	bad_config('one expert more than there are weights', 'experts|gate', sub { $_[0]{num_local_experts} += 1; () });
	bad_config('another family', 'config|tensor', sub { $_[0]{model_type} = 'olmoe'; $_[0]{num_experts} = $_[0]{num_local_experts}; () });
	folder('no', "a generation config: $_->[0]", 'generation_config\.json', do { my $break = $_->[1]; sub { put("$_[0]/generation_config.json", $break->('{"eos_token_id":1}')) } }) for @broken_json;
	folder('no', "generation_config.json: eos_token_id $_", 'generation_config\.json.*eos_token_id', do { my $v = $_; sub { put("$_[0]/generation_config.json", "{\"eos_token_id\":$v}") } }) for '-2', '"x"', '1e300', '[1,"x"]';
}

sub contents {
	$with = 'info cut score';
	for my $re ('embed_tokens\.weight$', 'lm_head\.weight$', 'model\.norm\.weight$', 'layers\.0\.input_layernorm', 'layers\.1\.post_attention_layernorm', 'layers\.0\.self_attn\.q_proj', 'layers\.0\.self_attn\.k_proj',
	            'layers\.1\.self_attn\.o_proj', 'layers\.0.*\.gate\.weight$', 'layers\.1.*experts\.2\.w1', 'layers\.1.*experts\.0\.w2', 'layers\.0.*experts\.3\.w3') {
		my $name = quotemeta find($tensors, qr/$re/)->{name};
		bad_weights("no $re", $name, sub { my $t = $_[0]; @$t = grep { $_->{name} !~ /$re/ } @$t; () });
		bad_weights("$re with a dimension more", $name, sub { my $x = find($_[0], qr/$re/); $x->{shape} = [1, @{ $x->{shape} }]; () });
		bad_weights("$re with one dimension", $name, sub { my $x = find($_[0], qr/$re/); my $n = 1; $n *= $_ for @{ $x->{shape} }; $x->{shape} = @{ $x->{shape} } > 1 ? [$n] : [$n / 2, 2]; () });
		bad_weights("$re transposed", $name, sub { my $x = find($_[0], qr/$re/); $x->{shape} = [reverse @{ $x->{shape} }]; () }) if @{ find($tensors, qr/$re/)->{shape} } == 2 && find($tensors, qr/$re/)->{shape}[0] != find($tensors, qr/$re/)->{shape}[1];
		bad_weights("$re with no elements", $name, sub { my $x = find($_[0], qr/$re/); $x->{shape} = [0, map { R($_) } @{ $x->{shape} }[1 .. $#{ $x->{shape} }]]; $x->{data} = ''; () });
		bad_weights("$re of whole numbers", $name, sub { my $x = find($_[0], qr/$re/); my %i = (BF16 => 'I16', F16 => 'I16', F32 => 'I32'); $x->{dtype} = $i{ $x->{dtype} }; () });
	}
	bad_weights('float64 weights', 'q_proj', sub { my $x = find($_[0], qr/layers\.0.*q_proj/); $x->{dtype} = 'F64'; my $n = 1; $n *= $_ for @{ $x->{shape} }; $x->{data} = "\0" x (8 * $n); () });
	bad_weights('float8 weights', 'q_proj', sub { my $x = find($_[0], qr/layers\.0.*q_proj/); $x->{dtype} = 'F8_E4M3'; my $n = 1; $n *= $_ for @{ $x->{shape} }; $x->{data} = "\0" x $n; () });
	bad_weights("a tensor called $_->[0]", $_->[2], do { my $v = $_->[1]; sub { push @{ $_[0] }, { name => $v, dtype => 'BF16', shape => [1], data => "\0\0" }; () } })
		for ['extra', 'model.extra.weight', 'model\.extra'], ['nothing', '', 'tensor '], ['layer 99', 'model.layers.99.self_attn.q_proj.weight', 'layers\.99'], ['layer -1', 'model.layers.-1.self_attn.q_proj.weight', 'layers\.-1'],
		    ['layer 00', 'model.layers.00.self_attn.q_proj.weight', 'layers\.00'], ['layer 4294967296', 'model.layers.4294967296.self_attn.q_proj.weight', '4294967296'],
		    ['expert 99', 'model.layers.0.block_sparse_moe.experts.99.w1.weight', 'experts\.99'], ['+0', 'model.layers.+0.self_attn.q_proj.weight', 'layers\.\+0'],
		    ['layer 99999999999999999999', 'model.layers.99999999999999999999.self_attn.q_proj.weight', '99999999999999999999'],
		    ['with a newline', "a\nmoe-shard: all is well", 'tensor a'], ['with an escape', "a\x{1b}[2J\x{1b}]0;x\x07", 'tensor a'], ['by 300000 letters', 'x' x 300000, 'tensor xxx'], ['with percents', '%s%s%n%100000d', 'tensor %s%s%n%1'],
		    ['with a bidirectional mark', "model.\x{202e}thgiew", 'tensor model'];
}

# ---- what only some families have ----

sub families {
	$with = 'info score';
	my ($dir) = @args;
	base("$dir/fused");
	weights('yes', 'fused: written again as it was');
	my $gu = quotemeta find($tensors, qr/layers\.1.*gate_up_proj/)->{name};
	my $dn = quotemeta find($tensors, qr/layers\.0.*experts\.down_proj/)->{name};
	for ([$gu, qr/layers\.1.*gate_up_proj/], [$dn, qr/layers\.0.*experts\.down_proj/]) {
		my ($name, $re) = @$_;
		bad_weights("fused: no $name", $name, sub { my $t = $_[0]; @$t = grep { $_->{name} !~ $re } @$t; () });
		bad_weights("fused: $name transposed", $name, sub { my $x = find($_[0], $re); $x->{shape} = [@{ $x->{shape} }[0, 2, 1]]; () }) if find($tensors, $re)->{shape}[1] != find($tensors, $re)->{shape}[2];
		bad_weights("fused: $name with experts merged", $name, sub { my $x = find($_[0], $re); my @s = @{ $x->{shape} }; $x->{shape} = [$s[0] * $s[1], $s[2]]; () });
		bad_weights("fused: $name with one expert less", $name, sub { my $x = find($_[0], $re); my @s = @{ $x->{shape} }; $x->{shape} = [$s[0] - 1, @s[1, 2]]; $x->{data} = substr $x->{data}, 0, length($x->{data}) / $s[0] * ($s[0] - 1); () });
		bad_weights("fused: $name of other types", $name, sub { my $x = find($_[0], $re); $x->{dtype} = 'U16'; () });
	}
	bad_weights('fused: an expert a second time by itself', 'experts', sub {
		my ($t) = @_; my $x = find($t, qr/layers\.0.*experts\.down_proj/); my @s = @{ $x->{shape} }; (my $n = $x->{name}) =~ s/down_proj.*/0.w2.weight/; (my $g = $x->{name}) =~ s/experts\.down_proj.*/experts/;
		push @$t, { name => $n, dtype => $x->{dtype}, shape => [@s[1, 2]], data => substr($x->{data}, 0, length($x->{data}) / $s[0]) }; () });

	for my $family ('qwen2', 'qwen3', 'olmoe') {
		base("$dir/$family");
		weights('yes', "$family: written again as it was");
		my $f = 'config\.json';
		my ($k, $other) = exists $config->{num_experts} ? ('num_experts', 'num_local_experts') : ('num_local_experts', 'num_experts');
		bad_config("$family: $k $_", '(config\.json|safetensors)', do { my $v = $_; sub { $_[0]{$k} = R($v); () } }) for '0', '-1', '1e300', '"8"', '1.5', '1099511627776';
		bad_config("$family: no $k", "$f|tensor model", sub { delete $_[0]{$k}; () });
		bad_config("$family: both $k and $other, different", "$f.*experts", sub { $_[0]{$other} = $_[0]{$k} * 2; () });
		bad_config("$family: norm_topk_prob $_", $f, do { my $v = $_; sub { $_[0]{norm_topk_prob} = R($v); () } }) for '"yes"', '2', '[]';
		bad_config("$family: more experts a token than experts", $f, sub { $_[0]{num_experts_per_tok} = $_[0]{$k} + 1; () });
		if ($family ne 'olmoe') {
			bad_config("$family: decoder_sparse_step $_", $f, do { my $v = $_; sub { $_[0]{decoder_sparse_step} = R($v); () } }) for '0', '-1', '1e300', '"1"', '1.5';
			bad_config("$family: mlp_only_layers $_", $f, do { my $v = $_; sub { $_[0]{mlp_only_layers} = R($v); () } }) for '[-1]', '7', '["0"]', '[1.5]', '{}', '[0,1e300]';
			bad_config("$family: moe_intermediate_size $_", '(config\.json|safetensors)', do { my $v = $_; sub { $_[0]{moe_intermediate_size} = R($v); () } }) for '0', '-1', '1e300', '"8"', '2147483647';
			bad_config("$family: a layer without experts that has their weights", 'layers\.0', sub { $_[0]{mlp_only_layers} = [0]; () });
		}
	}
	base("$dir/qwen2");
	bad_config("qwen2: shared_expert_intermediate_size $_", '(config\.json|safetensors)', do { my $v = $_; sub { $_[0]{shared_expert_intermediate_size} = R($v); () } }) for '-1', '1e300', '"8"', '1.5', '2147483647';
	for my $re ('layers\.0\.self_attn\.q_proj\.bias', 'layers\.0\.mlp\.shared_expert\.down_proj', 'layers\.0\.mlp\.shared_expert_gate') {
		my $name = quotemeta find($tensors, qr/$re/)->{name};
		bad_weights("qwen2: no $re", $name, sub { my $t = $_[0]; @$t = grep { $_->{name} !~ /$re/ } @$t; () });
		bad_weights("qwen2: $re with a dimension more", $name, sub { my $x = find($_[0], qr/$re/); $x->{shape} = [1, @{ $x->{shape} }]; () });
	}
	base("$dir/qwen3");
	for my $re ('layers\.0\.self_attn\.q_norm', 'layers\.1\.self_attn\.k_norm') {
		my $name = quotemeta find($tensors, qr/$re/)->{name};
		bad_weights("qwen3: no $re", $name, sub { my $t = $_[0]; @$t = grep { $_->{name} !~ /$re/ } @$t; () });
		bad_weights("qwen3: $re of another length", $name, sub { my $x = find($_[0], qr/$re/); $x->{shape} = [$x->{shape}[0] * 2]; $x->{data} x= 2; () });
	}
	base("$dir/olmoe");
	bad_config("olmoe: clip_qkv $_", 'config\.json', do { my $v = $_; sub { $_[0]{clip_qkv} = R($v); () } }) for '-1', '"x"', '[]', '1e999';
}

# ---- tokenizers ----

# The 256 letters that stand for bytes in byte-level vocabularies.
sub byte_letters {
	my @l;
	my $n = 0;
	for my $b (0 .. 255) {
		my $plain = ($b >= 33 && $b <= 126) || ($b >= 161 && $b <= 172) || ($b >= 174);
		push @l, chr($plain ? $b : 256 + $n++);
	}
	return @l;
}

sub byte_level {
	my @l = byte_letters();
	my %v = ('<s>' => 0, '</s>' => 1);
	$v{ $l[$_] } = $_ + 2 for 0 .. 255;
	@v{ 'he', 'hel', 'lo' } = (258, 259, 260);
	return { version => '1.0', truncation => R('null'), padding => R('null'),
		added_tokens => [map { { id => $_, content => ('<s>', '</s>')[$_], single_word => R('false'), lstrip => R('false'), rstrip => R('false'), normalized => R('false'), special => R('true') } } 0, 1],
		normalizer => R('null'),
		pre_tokenizer => { type => 'Sequence', pretokenizers => [{ type => 'Split', pattern => { Regex => '\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}]+|\\s+' }, behavior => 'Isolated', invert => R('false') },
			{ type => 'ByteLevel', add_prefix_space => R('false'), trim_offsets => R('true'), use_regex => R('false') }] },
		post_processor => { type => 'TemplateProcessing', single => [{ SpecialToken => { id => '<s>', type_id => 0 } }, { Sequence => { id => 'A', type_id => 0 } }], pair => [{ Sequence => { id => 'A', type_id => 0 } }, { Sequence => { id => 'B', type_id => 1 } }],
			special_tokens => { '<s>' => { id => '<s>', ids => [0], tokens => ['<s>'] } } },
		decoder => { type => 'ByteLevel', add_prefix_space => R('false'), trim_offsets => R('true'), use_regex => R('false') },
		model => { type => 'BPE', dropout => R('null'), unk_token => R('null'), continuing_subword_prefix => R('null'), end_of_word_suffix => R('null'), fuse_unk => R('false'), byte_fallback => R('false'), ignore_merges => R('false'),
			vocab => \%v, merges => [['h', 'e'], ['he', 'l'], ['l', 'o']] } };
}

sub sentence_like {
	my %v = ('<unk>' => 0, '<s>' => 1, '</s>' => 2);
	$v{ sprintf '<0x%02X>', $_ } = $_ + 3 for 0 .. 255;
	my $n = 259;
	$v{$_} = $n++ for "\x{2581}", 'a' .. 'z';
	@v{ 'he', "\x{2581}he" } = ($n, $n + 1);
	my $t = byte_level();
	$t->{added_tokens} = [map { { id => $_, content => ('<unk>', '<s>', '</s>')[$_], single_word => R('false'), lstrip => R('false'), rstrip => R('false'), normalized => R('false'), special => R('true') } } 0 .. 2];
	$t->{normalizer} = { type => 'Sequence', normalizers => [{ type => 'Prepend', prepend => "\x{2581}" }, { type => 'Replace', pattern => { String => ' ' }, content => "\x{2581}" }] };
	$t->{pre_tokenizer} = R('null');
	$t->{post_processor}{special_tokens}{'<s>'}{ids} = [1];
	$t->{decoder} = { type => 'Sequence', decoders => [{ type => 'Replace', pattern => { String => "\x{2581}" }, content => ' ' }, { type => 'ByteFallback' }, { type => 'Fuse' }, { type => 'Strip', content => ' ', start => 1, stop => 0 }] };
	$t->{model} = { type => 'BPE', dropout => R('null'), unk_token => '<unk>', continuing_subword_prefix => R('null'), end_of_word_suffix => R('null'), fuse_unk => R('true'), byte_fallback => R('true'), vocab => \%v, merges => ["h e", "\x{2581} he"] };
	return $t;
}

sub tokenizer_file {
	my ($want, $words, $base, $change, $pattern) = @_;
	my $d = fold();
	my $t = dclone($base);
	my $r = $change ? $change->($t) : undef;
	same_files($good, $d, 'tokenizer.json', 'tokenizer_config.json');
	spew("$d/tokenizer.json", defined $r && !ref $r && $r ne '' ? $r : text($t));
	row($want, $d, $words, $pattern // 'tokenizer\.json');
}

sub tokenizers {
	$with = 'prompt';
	$good = $args[0];
	my ($b, $s) = (byte_level(), sentence_like());
	my $bad = sub { my ($words, $change, $pattern) = @_; tokenizer_file('no', $words, $b, $change, $pattern) };
	my $bad_s = sub { my ($words, $change, $pattern) = @_; tokenizer_file('no', $words, $s, $change, $pattern) };
	tokenizer_file('yes', 'a byte-level tokenizer', $b);
	tokenizer_file('yes', 'a SentencePiece-like tokenizer', $s);
	tokenizer_file('yes', 'merges as strings', $b, sub { $_[0]{model}{merges} = ['h e', 'he l']; () });
	for (@broken_json) { my ($words, $break) = @$_; $bad->("a tokenizer: $words", sub { my $t = $break->(text($_[0])); $t eq '' ? ' ' : $t }) }
	$bad->('the same token twice', sub { my $t = text($_[0]); $t =~ s/"vocab":\{/"vocab":{"he":17,/; $t });
	$bad->("model $_", do { my $v = $_; sub { $_[0]{model} = R($v); () } }) for 'null', '[]', '"BPE"', '{}', '{"type":"BPE"}', '{"type":"BPE","vocab":{}}', '{"type":"BPE","vocab":[["a",0]],"merges":[]}';
	$bad->("model type $_", do { my $v = $_; sub { $_[0]{model}{type} = R($v); () } }) for '"WordPiece"', '"Unigram"', '"bpe"', '7', '"a\\nb"';
	$bad->("vocab $_", do { my $v = $_; sub { $_[0]{model}{vocab} = R($v); () } }) for 'null', '7', '[]', '"x"', '{}', '["a"]';
	$bad->("a token whose id is $_", do { my $v = $_; sub { $_[0]{model}{vocab}{he} = R($v); () } }) for '-1', '1e300', '2147483648', '4294967296', '18446744073709551616', '1.5', '"258"', 'null', '[]', '7', '2147483647', '1000000000';
	$bad->("merges $_", do { my $v = $_; sub { $_[0]{model}{merges} = R($v); () } })
		for '7', '{}', '"h e"', '[7]', '[[]]', '[["h"]]', '[["h","e","l"]]', '[["h",7]]', '[""]', '["h"]', '["h e l"]', '[" "]', '["h "]', '[" e"]', '[null]', '[["zz","e"]]', '[["h","zz"]]', '["zz e"]', '[["h","z"]]', '[["",""]]';
	$bad->("unk_token $_", do { my $v = $_; sub { $_[0]{model}{unk_token} = R($v); () } }) for '7', '[]';
	$bad->("dropout $_", do { my $v = $_; sub { $_[0]{model}{dropout} = R($v); () } }) for '0.5', '"x"';
	$bad->("$_->[0] $_->[1]", do { my ($k, $v) = @$_; sub { $_[0]{model}{$k} = R($v); () } }) for ['continuing_subword_prefix', '7'], ['end_of_word_suffix', '7'], ['byte_fallback', '"x"'], ['ignore_merges', '7'];
	$bad->("pre_tokenizer $_", do { my $v = $_; sub { $_[0]{pre_tokenizer} = R($v); () } })
		for '7', '"x"', '[]', '{}', '{"type":"Nonsense"}', '{"type":7}', '{"type":"Sequence"}', '{"type":"Sequence","pretokenizers":7}', '{"type":"Sequence","pretokenizers":[7]}',
		    '{"type":"Split"}', '{"type":"Split","pattern":7,"behavior":"Isolated"}', '{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated","invert":false}', '{"type":"Split","pattern":{"Regex":"[a"},"behavior":"Isolated","invert":false}',
		    '{"type":"Split","pattern":{"Regex":"a{99999}"},"behavior":"Isolated","invert":false}', '{"type":"Split","pattern":{"Regex":"\\\\1"},"behavior":"Isolated","invert":false}',
		    '{"type":"Split","pattern":{"Regex":7},"behavior":"Isolated","invert":false}', '{"type":"Split","pattern":{"Regex":"a"},"behavior":"Nonsense","invert":false}', '{"type":"Split","pattern":{"Nonsense":"a"},"behavior":"Isolated"}',
		    '{"type":"Split","pattern":{"Regex":"' . '(' x 5000 . ')' x 5000 . '"},"behavior":"Isolated","invert":false}', '{"type":"ByteLevel","add_prefix_space":7}',
		    '{"type":"Sequence","pretokenizers":[' x 50 . '{"type":"ByteLevel"}' . ']}' x 50;
	$bad->("normalizer $_", do { my $v = $_; sub { $_[0]{normalizer} = R($v); () } })
		for '7', '[]', '{}', '{"type":"Nonsense"}', '{"type":"Sequence"}', '{"type":"Sequence","normalizers":[7]}', '{"type":"Replace"}', '{"type":"Replace","pattern":{"String":7},"content":"x"}', '{"type":"Replace","pattern":{"Regex":"("},"content":"x"}',
		    '{"type":"Prepend"}', '{"type":"Prepend","prepend":7}', '{"type":"Precompiled","precompiled_charsmap":"AAAA"}';
	$bad->("decoder $_", do { my $v = $_; sub { $_[0]{decoder} = R($v); () } })
		for '7', '[]', '{}', '{"type":"Nonsense"}', '{"type":"Sequence"}', '{"type":"Sequence","decoders":[7]}', '{"type":"Strip","content":"ab","start":1,"stop":0}', '{"type":"Strip","content":" ","start":-1,"stop":0}', '{"type":"Strip","content":" ","start":1e300,"stop":0}', '{"type":"Replace","pattern":{"Regex":"["},"content":"x"}';
	$bad->("post_processor $_", do { my $v = $_; sub { $_[0]{post_processor} = R($v); () } })
		for '7', '[]', '{}', '{"type":"Nonsense"}', '{"type":"TemplateProcessing"}', '{"type":"TemplateProcessing","single":7,"pair":[],"special_tokens":{}}', '{"type":"TemplateProcessing","single":[7],"pair":[],"special_tokens":{}}',
		    '{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<no>","type_id":0}}],"pair":[],"special_tokens":{}}', '{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":7}}],"pair":[],"special_tokens":{}}';
	$bad->("special token ids $_", do { my $v = $_; sub { $_[0]{post_processor}{special_tokens}{'<s>'}{ids} = R($v); () } }) for '[-1]', '[1e300]', '["0"]', '7', '[2147483648]', '[1.5]', '[99999]';
	$bad->("added_tokens $_", do { my $v = $_; sub { $_[0]{added_tokens} = R($v); () } }) for '7', '{}', '[7]', '[null]', '[{}]', '["x"]';
	$bad->("an added token whose $_->[0] is $_->[1]", do { my ($k, $v) = @$_; sub { $_[0]{added_tokens}[1]{$k} = R($v); () } })
		for ['id', '-1'], ['id', '1e300'], ['id', '"1"'], ['id', '1.5'], ['id', '2147483648'], ['content', '7'], ['content', 'null'], ['special', '"x"'], ['lstrip', '7'], ['normalized', '[]'];
	$bad_s->('byte fallback with a byte left out', sub { delete $_[0]{model}{vocab}{'<0x41>'}; () }, 'tokenizer\.json|0x41') if 0;
	folder('no', "a tokenizer config: $_->[0]", 'tokenizer_config\.json', do { my $break = $_->[1]; sub { put("$_[0]/tokenizer_config.json", $break->('{"bos_token":"<s>"}')) } }) for @broken_json;
	folder('no', 'a tokenizer that is a folder', 'tokenizer\.json', sub { unlink "$_[0]/tokenizer.json"; mkdir "$_[0]/tokenizer.json" });
	folder('no', 'a tokenizer that is a pipe', 'tokenizer\.json', sub { unlink "$_[0]/tokenizer.json"; system 'mkfifo', "$_[0]/tokenizer.json" });
	folder('no', 'a tokenizer that never ends', 'tokenizer\.json', sub { unlink "$_[0]/tokenizer.json"; symlink '/dev/zero', "$_[0]/tokenizer.json" });
	folder('no', "generation_config.json: $_", 'generation_config\.json', do { my $v = $_; sub { put("$_[0]/generation_config.json", "{$v}") } })
		for '"do_sample":true,"temperature":-1', '"do_sample":true,"temperature":"x"', '"do_sample":true,"top_p":2', '"do_sample":true,"top_k":-5', '"do_sample":true,"top_k":1e300', '"do_sample":"x"';
	# Patterns that would try for hours: the answer is an error, soon.
	my $slow = dclone($b);
	$slow->{pre_tokenizer}{pretokenizers}[0]{pattern}{Regex} = '(a+)+$|(?:a|aa|a?)+!';
	make_path("$out/slow");
	same_files($good, "$out/slow", 'tokenizer.json');
	spew("$out/slow/tokenizer.json", text($slow));
	# A tokenizer that knows more tokens than the model.
	my $more = dclone($b);
	$more->{model}{vocab}{he} = 9999999;
	make_path("$out/more");
	same_files($good, "$out/more", 'tokenizer.json');
	spew("$out/more/tokenizer.json", text($more));
}

# ---- shard sets ----

sub set_with {
	my ($want, $words, $pattern, $change) = @_;
	my $d = fold();
	my $m = $json->decode(slurp("$good/manifest.json"));
	same_files($good, $d, 'manifest.json');
	my $r = $change ? $change->($m, $d) : undef;
	spew("$d/manifest.json", defined $r && !ref $r && $r ne '' ? $r : text($m));
	row($want, $d, $words, $pattern);
}

sub shards {
	$with = 'info verify serve score gc';
	$good = $args[0];
	my $f = 'manifest\.json';
	my $bad = sub { my ($words, $change, $pattern) = @_; set_with('no', $words, $pattern // $f, $change) };
	$with = 'info verify score gc';
	set_with('yes', 'a manifest that is written again as it was');
	$with = 'info verify serve score gc';
	for (@broken_json) { my ($words, $break) = @$_; $bad->("a manifest: $words", sub { my $t = $break->(text($_[0])); $t eq '' ? ' ' : $t }) }
	$bad->("schema $_", do { my $v = $_; sub { $_[0]{schema} = R($v); () } }, "$f.*schema") for '99', '0', '-1', '"1"', '1.5', '1e300', 'null';
	for my $k ('schema', 'fingerprint', 'epoch', 'devices', 'placement', 'files', 'experts', 'model') { $bad->("no $k", sub { delete $_[0]{$k}; () }) }
	$bad->("devices $_", do { my $v = $_; sub { $_[0]{devices} = R($v); () } }) for '0', '-1', '3', '1', '1e300', '"2"', '2147483648';
	$bad->("epoch $_", do { my $v = $_; sub { $_[0]{epoch} = R($v); () } }) for '0', '-1', '1.5', '1e300', '"1"', '18446744073709551616';
	$bad->("fingerprint $_", do { my $v = $_; sub { $_[0]{fingerprint} = R($v); () } }) for '7', '""', '"x"', '"' . '0' x 31 . '"', '"' . '0' x 33 . '"', '"' . 'g' x 32 . '"';
	for my $i (0, 1) {
		$bad->("file $i called $_", do { my $v = $_; sub { $_[0]{files}[$i]{name} = R($v); () } })
			for '"../x"', '"/etc/passwd"', '""', '"."', '".."', '"a/b"', '7', 'null', '"manifest.json/"', '"a\\nb"';
		$with = 'verify merge score';
		$bad->("file $i called $_", do { my $v = $_; sub { $_[0]{files}[$i]{name} = $v; () } }, substr $_, 0, 100) for 'none.safetensors', 'x' x 5000;
		$with = 'info verify serve score gc';
	}
	$bad->('two files of one name', sub { $_[0]{files}[1]{name} = $_[0]{files}[0]{name}; () });
	$bad->('two files of one device', sub { my @x = grep { defined $_->{device} } @{ $_[0]{files} }; $x[1]{device} = $x[0]{device}; () });
	$bad->("a file's bytes $_", do { my $v = $_; sub { $_[0]{files}[1]{bytes} = R($v); () } }) for '-1', '1e300', '"8"', '1.5', '0', 'null';
	$bad->("a file's role $_", do { my $v = $_; sub { $_[0]{files}[1]{role} = R($v); () } }) for '7', '"x"', 'null';
	$bad->("a file's device $_", do { my $v = $_; sub { my ($x) = grep { $_->{role} eq 'experts' } @{ $_[0]{files} }; $x->{device} = R($v); () } }) for '2', '-1', '1e300', '"0"', 'null';
	$bad->("a file's sum $_", do { my $v = $_; sub { $_[0]{files}[1]{xxh3} = R($v); () } }) for '7', '"x"', 'null';
	$bad->('one file left out', sub { pop @{ $_[0]{files} }; () });
	$bad->("files $_", do { my $v = $_; sub { $_[0]{files} = R($v); () } }) for '7', '{}', '[]', '[7,7,7]', '[null,null,null]';
	$bad->("experts $_", do { my $v = $_; sub { $_[0]{experts} = R($v); () } }) for '7', '{}', '[]', '[7]';
	$bad->("an expert's $_->[0] $_->[1]", do { my ($k, $v) = @$_; sub { $_[0]{experts}[1]{$k} = R($v); () } })
		for map { my $k = $_; map { [$k, $_] } '-1', '1e300', '"0"', '1.5', 'null', '9007199254740992', '999999999' } 'layer', 'expert', 'file', 'offset', 'bytes';
	$bad->("an expert's offset past the end by one", sub { my $x = $_[0]{experts}[0]; $x->{offset} = R($_[0]{files}[ $x->{file} ]{bytes} - $x->{bytes} + 1); () });
	$bad->("an expert's bytes that wrap around", sub { $_[0]{experts}[0]{bytes} = R('18446744073709551615'); () });
	$bad->('an expert left out', sub { pop @{ $_[0]{experts} }; () });
	$bad->('an expert twice', sub { push @{ $_[0]{experts} }, $_[0]{experts}[0]; () });
	$bad->('an expert in the place of another', sub { $_[0]{experts}[1] = $_[0]{experts}[0]; () });
	$bad->("placement $_", do { my $v = $_; sub { $_[0]{placement} = R($v); () } }) for '7', '{}', '[]', '[[]]', '[null,null]', '"x"';
	$bad->('a placement with a layer less', sub { pop @{ $_[0]{placement} }; () });
	$bad->('a placement with a layer more', sub { push @{ $_[0]{placement} }, $_[0]{placement}[0]; () });
	$bad->('a placement without one expert', sub { pop @{ $_[0]{placement}[0] }; () });
	$bad->("an expert on device $_", do { my $v = $_; sub { $_[0]{placement}[0][0] = R($v); () } }) for '2', '-1', '1e300', '"0"', '[]', '[0,0]', 'null', '1.5', '[0,2]', '[[0]]';
	$bad->('an expert on the other device', sub { $_[0]{placement}[0][0] = R(ref $_[0]{placement}[0][0] ? '1' : 1 - $_[0]{placement}[0][0]); () });
	$bad->("model.$_ of another model", do { my $k = $_; sub { $_[0]{model}{$k} += 1; () } }) for 'layers', 'hidden', 'vocab', 'experts';
	$with = 'verify merge score';
	for my $i (0, 1, 2) {
		my $cut = sub { my ($m, $d, $how) = @_; my $n = $m->{files}[$i]{name}; my $b = slurp("$d/$n"); put("$d/$n", $how->($b)); () };
		my $n = $json->decode(slurp("$good/manifest.json"))->{files}[$i];
		my $name = quotemeta $n->{name};
		$with = ($n->{device} // 7) == 0 ? 'verify merge score serve' : 'verify merge score';
		$bad->("$n->{role} file cut in half", sub { $cut->(@_, sub { substr $_[0], 0, length($_[0]) / 2 }) }, $name);
		$bad->("$n->{role} file a byte short", sub { $cut->(@_, sub { substr $_[0], 0, -1 }) }, $name);
		$bad->("$n->{role} file a byte long", sub { $cut->(@_, sub { "$_[0]x" }) }, $name);
		$bad->("$n->{role} file empty", sub { $cut->(@_, sub { '' }) }, $name);
		$bad->("$n->{role} file missing", sub { unlink "$_[1]/$_[0]{files}[$i]{name}"; () }, $name);
		$bad->("$n->{role} file whose header is broken", sub { $cut->(@_, sub { my $b = $_[0]; substr($b, 8, 20) = "\xff" x 20; $b }) }, $name);
		my $header = sub { my ($from, $to) = @_; sub { $cut->(@_, sub { my $b = $_[0]; my $h = substr $b, 8, unpack 'Q<', $b; $h =~ s/$from/$to/ or die "no $from in $n->{name}\n"; substr($b, 8, length $h) = $h; $b }) } };
		for ($n->{role} eq 'base' ? (['q_proj', 'x_proj'], ['q_proj', 'k_proj'], ['layers\.0', 'layers.9']) : (['w1\.weight', 'w3.weight'], ['w1\.weight', 'w7.weight'], ['layers\.1', 'layers.9'], ['layers\.1', 'layers.0'])) {
			my ($from, $to) = @$_;
			$bad->("$n->{role} file $i with $from called $to", $header->($from, $to), $name);
		}
		$bad->("$n->{role} file $i with another shape", $header->('"shape":\[48,', '"shape":[84,'), $name);
		$bad->("$n->{role} file $i with another type", $header->('BF16', 'BF61'), $name);
		$bad->("$n->{role} file a pipe", sub { my $p = "$_[1]/$_[0]{files}[$i]{name}"; unlink $p; system 'mkfifo', $p; () }, $name);
	}
	$with = 'info verify merge serve score';
	set_with('no', 'no config', 'config\.json', sub { unlink "$_[1]/config.json"; () });
}

# Weights that are no numbers, or too large: not the file's fault, and nothing may break over them.
sub numbers {
	base($args[0]);
	$with = 'score prompt sample';
	my %bits = (BF16 => { nan => "\xc0\x7f", inf => "\x80\x7f", huge => "\x7f\x7f" }, F16 => { nan => "\0\x7e", inf => "\0\x7c", huge => "\xff\x7b" }, F32 => { nan => "\0\0\xc0\x7f", inf => "\0\0\x80\x7f", huge => "\xff\xff\x7f\x7f" });
	for my $re ('embed_tokens', 'lm_head', 'model\.norm', 'layers\.0\.self_attn\.q_proj', 'layers\.0\.self_attn\.v_proj', 'layers\.1.*\.gate\.weight', 'experts\.0\.w1', 'experts\..*\.w2', '.') {
		for my $kind ('nan', 'inf', 'huge') {
			my $d = weights('any', "$kind in $re", '', sub { for (grep { $_->{name} =~ /$re/ } @{ $_[0] }) { my $b = $bits{ $_->{dtype} }{$kind}; $_->{data} = $b x (length($_->{data}) / length $b) } () });
		}
	}
	weights('any', 'one weight of the gate that is no number', '', sub { my $x = find($_[0], qr/layers\.0.*\.gate\.weight/); substr($x->{data}, 0, length $bits{ $x->{dtype} }{nan}) = $bits{ $x->{dtype} }{nan}; () });
	weights('any', 'all weights zero', '', sub { $_->{data} = "\0" x length $_->{data} for @{ $_[0] }; () });
}

sub flip {
	my ($set, $layer, $expert) = @args;
	my $m = $json->decode(slurp("$set/manifest.json"));
	my ($x) = grep { $_->{layer} == $layer && $_->{expert} == $expert } @{ $m->{experts} } or die "no such expert\n";
	my $n = "$set/$m->{files}[ $x->{file} ]{name}";
	my $b = slurp($n);
	substr($b, $x->{offset} + int($x->{bytes} / 2), 1) ^= "\x01";
	put($n, $b);
	print "$m->{files}[ $x->{file} ]{name}\n";
}

# A ZeroMQ greeting and handshake, as peers begin.
my $greeting = "\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" . "\0" x 16 . "\0" x 32;
sub handshake { my $t = "\5READY\x0bSocket-Type" . pack('N/a', $_[0]); return "$greeting\4" . chr(length $t) . $t }
sub noise { return join '', map { chr int rand 256 } 1 .. 1 + rand $_[0] }

sub garbage {
	my @open;
	require IO::Socket::UNIX;
	$SIG{PIPE} = 'IGNORE';
	srand 7;
	for my $i (0 .. 119) {
		my $s = IO::Socket::UNIX->new(Peer => $args[0]) or next;
		my $hello = handshake('DEALER');
		my @kinds = (noise(3000), substr($greeting, 0, rand 64), $greeting . noise(500),
			$hello . join('', map { my $m = noise(200); "\0" . chr(length $m) . $m } 1 .. 20),
			$hello . "\2" . pack('Q>', 1 << 62) . 'x', $hello . "\1\0" x 5000 . "\0\0");
		print $s $kinds[$i % @kinds];
		$s->flush;
		push @open, $s if $i % 3 == 0;
	}
}

sub fake {
	my ($path, $mode) = @args;
	my @open;
	require IO::Socket::UNIX;
	$SIG{PIPE} = 'IGNORE';
	unlink $path;
	my $l = IO::Socket::UNIX->new(Local => $path, Listen => 8) or die "$path: $!\n";
	while (my $s = $l->accept) {
		push @open, $s unless $mode eq 'closes';
		next if $mode eq 'silent' || $mode eq 'closes';
		print $s $mode eq 'junk' ? noise(500) : handshake('ROUTER');
		$s->flush;
		sysread $s, my $request, 4096 if $mode ne 'junk';
		print $s map { my $m = noise(250); chr(int rand 2) . chr(length $m) . $m } 1 .. 50 if $mode eq 'messages';
		print $s "\2" . pack('Q>', 1 << 40) if $mode eq 'long';
		$s->flush;
	}
}

sub epoch {
	my ($set, $n) = @args;
	my $m = $json->decode(slurp("$set/manifest.json"));
	$m->{epoch} = R($n);
	put("$set/manifest.json", text($m));
}

# ---- policies, hardware, hosts ----

sub file_with { my ($want, $words, $pattern, $t) = @_; my $p = sprintf '%s/%03d', $out, ++$count; spew($p, $t); row($want, $p, $words, $pattern) }

sub policies {
	$with = 'policy';
	my $good_text = slurp($args[0]);
	my $bad = sub {
		my ($words, $change) = @_;
		my $p = $json->decode($good_text);
		my $r = $change->($p);
		my $n = sprintf '%03d', $count + 1;
		file_with('no', $words, "$n.*", defined $r && !ref $r && $r ne '' ? $r : text($p));
	};
	file_with('yes', 'a policy as it was', '', text($json->decode($good_text)));
	for (@broken_json) { my ($words, $break) = @$_; $bad->("a policy: $words", sub { my $t = $break->(text($_[0])); $t eq '' ? ' ' : $t }) }
	$bad->("schema $_", do { my $v = $_; sub { $_[0]{schema} = R($v); () } }) for '99', '0', '-1', '"1"', '1e300';
	for my $k ('schema', 'devices', 'placement') { $bad->("no $k", sub { delete $_[0]{$k}; () }) }
	$bad->("devices $_", do { my $v = $_; sub { $_[0]{devices} = R($v); () } }) for '7', '{}', '[]', '[7]', '[null]', '[{"index":1}]', '[{"index":0},{"index":0}]', '[{"index":-1}]', '[{"index":1e300},{"index":1}]', '["a","b"]';
	$bad->("a device's $_->[0] $_->[1]", do { my ($k, $v) = @$_; sub { $_[0]{devices}[1]{$k} = R($v); () } })
		for ['memory', '-1'], ['memory', '"x"'], ['memory', '1e300'], ['memory', '1.5'], ['index', '-1'], ['index', '5'], ['index', '"1"'], ['host', '7'], ['host', '"' . 'x' x 5000 . '"'], ['kind', '7'], ['quant', '7'], ['quant', '"q1"'], ['layout', '7'], ['layout', '"nonsense"'];
	$bad->('more devices than there may be', sub { $_[0]{devices} = [map { { index => $_, host => '', kind => 'cpu', memory => 0 } } 0 .. 5000]; () });
	$bad->("placement $_", do { my $v = $_; sub { $_[0]{placement} = R($v); () } }) for '7', '{}', '[]', '[[]]', '[null,null]', '"round-robin"', 'null';
	$bad->('a layer less', sub { pop @{ $_[0]{placement} }; () });
	$bad->('a layer more', sub { push @{ $_[0]{placement} }, $_[0]{placement}[0]; () });
	$bad->('an expert less', sub { pop @{ $_[0]{placement}[1] }; () });
	$bad->('an expert more', sub { push @{ $_[0]{placement}[1] }, 0; () });
	$bad->("an expert on device $_", do { my $v = $_; sub { $_[0]{placement}[1][0] = R($v); () } })
		for '2', '-1', '1e300', '"0"', '[]', '[0,0]', 'null', '1.5', '[0,2]', '[[0]]', '4294967296', '{}', 'true', '[' . join(',', (0) x 100000) . ']';
	$with = 'placement';
	my $ranks = sub { my ($words, $t) = @_; my $n = sprintf '%03d', $count + 1; file_with('no', $words, "$n", $t) };
	$ranks->("expert_to_ep_rank $_", "{\"expert_to_ep_rank\":$_}") for '7', '[]', '{}', '[0]', '[[0]]', '[-1,0,0,0,0,0,0,0]', '[0,1e300]', '["0"]', 'null', '[[],[]]', '[null]';
	$ranks->('neither a policy nor ranks', '{}');
}

sub hardware {
	$with = 'hardware';
	my $bad = sub { my ($words, $t) = @_; my $n = sprintf '%03d', $count + 1; file_with('no', $words, $n, $t) };
	my $level = '{"name":"cpu","count":1,"memory":68719476736,"bandwidth":1e11,"flops":1e12}';
	file_with('yes', 'a profile', '', "{\"name\":\"a\",\"levels\":[$level]}");
	file_with('yes', 'a fleet', '', "{\"hosts\":[{\"name\":\"a\",\"levels\":[$level]},{\"name\":\"b\",\"levels\":[$level]}]}");
	for (@broken_json) { my ($words, $break) = @$_; $bad->("a profile: $words", $break->("{\"name\":\"a\",\"levels\":[$level]}")) }
	$bad->($_, $_) for '{}', '{"levels":7}', '{"levels":[]}', '{"levels":[7]}', '{"levels":[{}]}', '{"levels":[{"name":"abacus","memory":1}]}', '{"hosts":7}', '{"hosts":[]}', '{"hosts":[7]}', '{"hosts":[{}]}', '{"hosts":{}}', '{"name":7,"levels":[' . $level . ']}';
	$bad->("memory $_", "{\"levels\":[{\"name\":\"cpu\",\"memory\":$_}]}") for '-1', '"64G"', '1e300', '[]', 'NaN';
	file_with('no', 'too little memory', 'do not fit.*available', '{"levels":[{"name":"cpu","memory":1024}]}');
	$bad->('more hosts than devices may be', '{"hosts":[' . join(',', ("{\"name\":\"a\",\"levels\":[$level]}") x 5000) . ']}');
	$bad->('a name of 5000 letters', '{"hosts":[{"name":"' . 'x' x 5000 . "\",\"levels\":[$level]}]}");
}

sub hosts {
	$with = 'hosts';
	my $bad = sub { my ($words, $t) = @_; my $n = sprintf '%03d', $count + 1; file_with('no', $words, $n, $t) };
	$bad->('an empty hosts file', '');
	$bad->('a hosts file of comments', "# one\n\n   # two\n");
	$bad->("host line: $_", "$_\n") for 'a slots=0', 'a slots=-1', 'a slots=x', 'a slots=', 'a slots=99999999999999999999', 'a slots=1000000000', 'a slots=1.5', 'a slots=1 slots=2', 'a port=0', 'a port=-1', 'a port=65536', 'a port=x', 'a port=', 'a slots=4 port=65534',
		'a b c', 'a=b', '=', 'slots=2', 'http://a', 'tcp://', 'tcp://a', 'tcp://a:', 'tcp://a:x', 'tcp://:5555', 'tcp://a:0', 'tcp://a:70000', 'tcp://a:1:2', 'ipc://', 'inproc://a', 'pgm://a;b:1', 'ipc://' . 'x' x 300, 'tcp://a:5555 slots=2',
		"a\0b", "\xff\xfe", 'x' x 100000, "a\x1b[2J", '-a', 'a/b', 'tcp://*:5555';
	$bad->('the same endpoint twice', "tcp://a:5555\ntcp://a:5555\n");
	$bad->('a good line and a bad one', "ipc:///tmp/none\na slots=0\n");
}

binmode STDOUT, ':raw';
make_path($out) unless $what =~ /^(flip|epoch|garbage|fake)$/;
if ($what eq 'checkpoints') { base($args[0]); headers(); kinds_of_file(); indexes(); configs(); contents() }
elsif ($what eq 'families') { families() }
elsif ($what eq 'text') { tokenizers() }
elsif ($what eq 'shards') { shards() }
elsif ($what eq 'policies') { policies() }
elsif ($what eq 'hardware') { hardware() }
elsif ($what eq 'hosts') { hosts() }
elsif ($what eq 'numbers') { numbers() }
elsif ($what eq 'flip') { flip() }
elsif ($what eq 'epoch') { epoch() }
elsif ($what eq 'garbage') { garbage() }
elsif ($what eq 'fake') { fake() }
else { die "malformed.pl: $what?\n" }
