package ml

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// However a text with secrets is cut into pieces, none of it shows any form of
// one, all else comes through, and nothing waits that is the beginning of none.
func TestNoSecretComesThroughInPieces(t *testing.T) {
	const one, two = "correct horse/battery+staple&x=%", "horse/battery+staple&x=%-longer-still"
	pem := "-----BEGIN PRIVATE KEY-----\nAAAABBBBCCCCDDDD\nEEEEFFFFGGGGHHHH\n-----END PRIVATE KEY-----\n"
	js, _ := json.Marshal(map[string]string{"p": one})
	enc := base64.StdEncoding.EncodeToString
	var said []string
	for _, x := range []string{one, two, "correct " + two, url.QueryEscape(one), string(js), pem, "EEEEFFFFGGGGHHHH", one + one, one[:len(one)-1] + one,
		enc([]byte(one + "\n")), enc([]byte("x" + one)), enc([]byte("xy" + one + "z")), base64.URLEncoding.EncodeToString([]byte(two))} {
		said = append(said, x, "plain words, correct horse", "correct horse/batt")
	}
	text := strings.Join(said, "\n")
	want := ""
	for seed := range uint64(300) {
		r := &redactor{}
		r.hide(one, pem)
		r.hide(two, two, "short")
		rnd := rand.New(rand.NewPCG(seed, 1))
		var out bytes.Buffer
		for rest := []byte(text); len(rest) > 0; {
			n := 1 + rnd.IntN(1+rnd.IntN(60))
			if seed == 0 {
				n = len(rest)
			}
			n = min(n, len(rest))
			out.Write(r.next(rest[:n]))
			rest = rest[n:]
		}
		out.Write(r.last())
		got := out.String()
		if seed == 0 {
			want = got
			for _, f := range append(append(forms(one), forms(two)...), forms(pem)...) {
				if len(f) >= shortest && strings.Contains(got, f) {
					t.Fatalf("%q comes through", f)
				}
			}
			if strings.Count(got, "plain words, correct horse\n") != strings.Count(text, "plain words, correct horse\n") || !strings.HasSuffix(got, "correct horse/batt") {
				t.Fatalf("words are lost:\n%s", got)
			}
			if n := strings.Count(got, string(hidden)); n < 14 {
				t.Fatalf("only %d are hidden:\n%s", n, got)
			}
		}
		if got != want {
			t.Fatalf("cut otherwise (seed %d) the text is\n%s\nnot\n%s", seed, got, want)
		}
	}
	r := &redactor{}
	r.hide(one)
	if got := string(r.next([]byte("a line\nc"))); got != "a line\n" {
		t.Errorf("what is shown at once is %q", got)
	}
}

// A job's log shows neither what opens its datastores nor what its sandbox was told;
// what it writes into its outputs is its own.
func TestLogsShowNoSecrets(t *testing.T) {
	w := ready(t, "")
	w.blobs.put(account2, "c", "d.txt", accountKey)
	w.do("olga", "PUT", ws+"/datastores/keyed", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","credentials":{"credentialsType":"AccountKey","secrets":{"secretsType":"AccountKey","key":"`+accountKey+`"}}}}`, 201)
	w.job("j1", `"command":"cat ${{inputs.d}}; echo; head -c 20 ${{inputs.d}}; sleep 0.7; tail -c +21 ${{inputs.d}}; echo; echo $AZUREML_RUN_TOKEN; cp ${{inputs.d}} outputs/","inputs":{"d":{"jobInputType":"uri_file","uri":"azureml://datastores/keyed/paths/d.txt"}}`)
	w.ends("j1", "Completed")
	if log := w.runs.get("j1").artifacts[stdLog]; log != "[redacted]\n[redacted]\n[redacted]\n" {
		t.Errorf("log = %q", log)
	}
	if kept := w.runs.get("j1").artifacts["outputs/d.txt"]; kept != accountKey {
		t.Errorf("the output is %q", kept)
	}
	if n := w.boxes.forgotten.Load(); n != 1 {
		t.Errorf("%d keys of folders are forgotten, want 1", n)
	}
	r := &redactor{}
	w.s.live.begin(liveRun{workspace: arm.MustID(ws), run: "x", sandbox: "box", hides: r})
	w.s.Told("another", arm.NewSecret([]byte("not for this one")))
	w.s.Told("", arm.NewSecret([]byte("not for this one")))
	w.s.Told("box", arm.NewSecret([]byte("a secret told")))
	if got := string(r.next([]byte("not for this one, a secret told.\n"))); got != "not for this one, [redacted].\n" {
		t.Errorf("the log has %q", got)
	}
}
