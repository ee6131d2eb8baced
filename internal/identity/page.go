package identity

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the pages, their style and script
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"time"

	"castellan/internal/mfa"
)

//go:embed page.html
var pageText string

//go:embed security.html
var securityText string

//go:embed page.css
var styleText string

//go:embed page.js
var scriptText string

// style is the one style of all pages, and the one script of those that talk to
// passkeys, with the hashes by which they are allowed.
type style struct {
	page, security *template.Template
	css            template.CSS
	js             template.JS
	cssHash        string
	jsHash         string
}

func newStyle() (style, error) {
	page, err := template.New("page").Parse(pageText)
	if err != nil {
		return style{}, err
	}
	security, err := template.New("security").Parse(securityText)
	if err != nil {
		return style{}, err
	}
	return style{page, security, template.CSS(styleText), template.JS(scriptText), hashSource(styleText), hashSource(scriptText)}, nil
}

// hashSource is the word by which a policy for content allows a text.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// field is one input of a page's form.
type field struct {
	Name, Label, Type, Auto, Value string
	Focus                          bool
	Free                           bool // may be empty
	Digits                         bool // a telephone shows its keys for digits
}

// button sends a page's form. Other is for what is not the page's main way, and
// works while fields are empty.
type button struct {
	Name, Value, Label string
	Other, Focus       bool
}

type anchor struct {
	Href  template.URL
	Label string
}

// view is what a page shows. Pages fetch nothing, and work with a keyboard and a
// screen reader; those that Ask a passkey have a script, and no others.
type view struct {
	Title, Site, Who, App, Text, Error, Small string
	Key                                       string
	Codes, Items                              []string
	Picture                                   template.HTML
	Action                                    template.URL
	Hidden                                    map[string]string
	Fields                                    []field
	Buttons                                   []button
	Ask, Way, Start                           string
	Link                                      *anchor
	Style                                     template.CSS
	Script                                    template.JS
	Next                                      template.URL // where the page goes on to by itself
	NextLabel                                 string
}

var originForm = regexp.MustCompile(`^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?`)

// pageHeaders shut the page against scripts, frames and caches. to is where the
// form may lead besides here, for browsers hold redirects of forms against it;
// script is for the one script of passkeys.
func pageHeaders(w http.ResponseWriter, to string, st style, script bool) {
	action, scripts := "'self'", "'none'"
	if o := originForm.FindString(to); o != "" {
		action += " " + o
	}
	if script {
		scripts = st.jsHash
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src "+scripts+"; style-src "+st.cssHash+"; form-action "+action+"; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer: browsers would send our own forms with the origin null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

func (s *Service) show(w http.ResponseWriter, status int, to string, v view) error {
	v.Site, v.Style = s.Site.Host(), s.style.css
	if v.Ask != "" {
		v.Script = s.style.js
	}
	return s.render(w, status, to, s.style.page, v, v.Ask != "")
}

func (s *Service) render(w http.ResponseWriter, status int, to string, t *template.Template, v any, script bool) error {
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return err
	}
	pageHeaders(w, to, s.style, script)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the browser may have gone
	return nil
}

// say shows a page without a form.
func (s *Service) say(w http.ResponseWriter, _ *http.Request, status int, title, text string) error {
	return s.show(w, status, "", view{Title: title, Text: text})
}

// fault shows an error that no client can be told of.
func (s *Service) fault(w http.ResponseWriter, _ *http.Request, err error) error {
	p := problemOf(err)
	return s.show(w, p.status, "", view{Title: "The sign-in can't go on", Error: p.text, Small: fmt.Sprintf("AADSTS%d", p.number)})
}

// form is a page with the form of a step, which carries the flow.
func (s *Service) form(w http.ResponseWriter, r *http.Request, status int, at step, f flow, a *authorization, v view) error {
	f.Step = at
	sealed, err := s.seal(f)
	if err != nil {
		return s.fault(w, r, err)
	}
	if v.Action = template.URL(s.forms()[at].path); v.Hidden == nil {
		v.Hidden = map[string]string{}
	}
	v.Hidden["ctx"] = sealed
	to := f.Back
	if a != nil {
		v.App, to = a.client.app.Name, a.redirect
	}
	return s.show(w, status, to, v)
}

func statusOf(problem string) int {
	if problem != "" {
		return http.StatusBadRequest
	}
	return http.StatusOK
}

func (s *Service) askPassword(w http.ResponseWriter, r *http.Request, f flow, a *authorization, name, problem string) error {
	return s.form(w, r, statusOf(problem), stepPassword, f, a, view{Title: "Sign in", Error: problem, Fields: []field{
		{Name: "login", Label: "User name", Type: "text", Auto: "username webauthn", Value: name, Focus: name == ""},
		{Name: "passwd", Label: "Password", Type: "password", Auto: "current-password", Focus: name != ""},
	}, Buttons: append([]button{{Label: "Sign in"}, {Name: "way", Value: "passkey", Label: "Use a passkey", Other: true}}, s.elsewhere(a)...), Link: &anchor{securityPath, "Your sign-in methods"}})
}

func (s *Service) askAccount(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User) error {
	return s.form(w, r, http.StatusOK, stepAccount, f, a, view{Title: "Which account?",
		Buttons: []button{{Name: "way", Value: "this", Label: "Go on as " + u.UPN, Focus: true}, {Name: "way", Value: "other", Label: "Use another account", Other: true}}})
}

func (s *Service) askChange(w http.ResponseWriter, r *http.Request, f flow, a *authorization, problem string) error {
	return s.form(w, r, statusOf(problem), stepChange, f, a, view{Title: "Choose a new password", Error: problem,
		Text: "Somebody else knows the password that you used. Choose one that only you know: at least 12 characters.", Fields: newPassword(true),
		Buttons: []button{{Label: "Change and sign in"}}})
}

func newPassword(focus bool) []field {
	return []field{
		{Name: "newpasswd", Label: "New password", Type: "password", Auto: "new-password", Focus: focus},
		{Name: "confirmnewpasswd", Label: "New password, once more", Type: "password", Auto: "new-password"},
	}
}

func (s *Service) askOwnPassword(w http.ResponseWriter, r *http.Request, f flow, u *User, problem string) error {
	return s.form(w, r, statusOf(problem), stepOwn, f, nil, view{Title: "Change your password", Who: u.UPN, Error: problem,
		Text:    "At least 12 characters. Everything else that is signed in with the old one is signed out.",
		Fields:  append([]field{{Name: "passwd", Label: "Present password", Type: "password", Auto: "current-password", Focus: true}}, newPassword(false)...),
		Buttons: []button{{Label: "Change password"}}, Link: &anchor{securityPath, "Back to your sign-in methods"}})
}

// askFactor asks for a second factor that the person has.
func (s *Service) askFactor(w http.ResponseWriter, r *http.Request, f flow, a *authorization, m methods, problem string) error {
	if len(m.Apps) == 0 && len(m.Recovery) == 0 {
		return s.askPasskey(w, r, f, a, problem)
	}
	v := view{Title: "Show that it is you", Error: problem, Text: "Type the code that your authenticator app shows, or one of your recovery codes.",
		Fields: []field{{Name: "otc", Label: "Code", Type: "text", Auto: "one-time-code", Focus: true}}, Buttons: []button{{Label: "Verify"}}}
	if len(m.Apps) == 0 {
		v.Text = "Use your passkey, or type one of your recovery codes."
	}
	if len(m.Passkeys) > 0 {
		v.Buttons = append(v.Buttons, button{Name: "way", Value: "passkey", Label: "Use a passkey", Other: true})
	}
	v.Buttons = append(v.Buttons, button{Name: "way", Value: "other", Label: "Another account", Other: true})
	return s.form(w, r, statusOf(problem), stepFactor, f, a, v)
}

// askPasskey asks for a passkey: of the person who showed something already, or
// of whoever it is.
func (s *Service) askPasskey(w http.ResponseWriter, r *http.Request, f flow, a *authorization, problem string) error {
	ask, err := s.party(r).AskAny()
	if err != nil {
		return s.fault(w, r, err)
	}
	f.Asked = ask.State
	return s.form(w, r, statusOf(problem), stepPasskey, f, a, view{Title: "Sign in with a passkey", Error: problem,
		Text: "Your device asks for your finger, face or PIN. Nothing of that leaves it.",
		Ask:  string(ask.Options), Way: "get", Start: "Use my passkey", Hidden: map[string]string{"answer": ""},
		Buttons: []button{{Name: "way", Value: "other", Label: "Another way", Other: true}}})
}

func (s *Service) askEnrol(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User, m methods, resistant bool) error {
	v := view{Title: "More is needed to keep your account safe", Who: u.UPN, Text: "Your organization asks for a second way to show that it is you. Add one now; it takes a minute.",
		Buttons: []button{{Name: "way", Value: "passkey", Label: "Add a passkey", Focus: true}}}
	if resistant {
		v.Text = "What you want to open asks for a passkey. Add one now; it takes a minute."
	}
	if !resistant {
		v.Buttons = append(v.Buttons, button{Name: "way", Value: "app", Label: "Add an authenticator app", Other: true})
	}
	return s.form(w, r, http.StatusOK, stepEnrol, f, a, v)
}

// askApp shows a new secret, and asks for the first code that comes of it.
func (s *Service) askApp(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User, problem string) error {
	svg, err := mfa.QR(mfa.URI(s.Site.Host(), u.UPN, f.Secret), "QR code for the authenticator app; the key below says the same")
	if err != nil {
		return s.fault(w, r, err)
	}
	return s.form(w, r, statusOf(problem), stepApp, f, a, view{Title: "Add an authenticator app", Who: u.UPN, Error: problem,
		Text: "Scan this with an authenticator app, and type the code that it then shows.", Picture: template.HTML(svg), Key: mfa.Typed(f.Secret), //nolint:gosec // drawn by us, with what it says escaped
		Fields: []field{{Name: "otc", Label: "Code from the app", Type: "text", Auto: "one-time-code", Focus: true, Digits: true}}, Buttons: []button{{Label: "Add it"}}})
}

// askKey asks the browser to make a passkey.
func (s *Service) askKey(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User, m methods, problem string) error {
	ask, err := s.party(r).AskNew(m.owner(u))
	if err != nil {
		return s.fault(w, r, err)
	}
	f.Asked = ask.State
	return s.form(w, r, statusOf(problem), stepKey, f, a, view{Title: "Add a passkey", Who: u.UPN, Error: problem,
		Text: "It lies on your device or security key, and works for this site alone.",
		Ask:  string(ask.Options), Way: "create", Start: "Make the passkey", Hidden: map[string]string{"answer": ""},
		Fields: []field{{Name: "name", Label: "Name, so that you tell it apart", Type: "text", Auto: "off", Value: fmt.Sprintf("Passkey %d", len(m.Passkeys)+1), Free: true}}})
}

func (s *Service) askCodes(w http.ResponseWriter, r *http.Request, f flow, a *authorization, u *User, codes []string) error {
	return s.form(w, r, http.StatusOK, stepCodes, f, a, view{Title: "Keep your recovery codes", Who: u.UPN, Codes: codes,
		Text:    "Each signs you in once if you lose your device. Print them or keep them where only you come; they are not shown again.",
		Buttons: []button{{Label: "I have kept them", Focus: true}}})
}

func (s *Service) askDevice(w http.ResponseWriter, r *http.Request, f flow, u *User, problem string) error {
	return s.form(w, r, statusOf(problem), stepDevice, f, nil, view{Title: "Sign in a device", Who: u.UPN, Error: problem,
		Text: "Type the code that your own device shows. If somebody else gave you the code, stop: it would sign them in as you.", Fields: []field{
			{Name: "otc", Label: "Code", Type: "text", Auto: "off", Focus: true},
		}, Buttons: []button{{Label: "Next"}}})
}

func (s *Service) askConfirm(w http.ResponseWriter, r *http.Request, f flow, u *User, app string) error {
	return s.form(w, r, http.StatusOK, stepConfirm, f, nil, view{Title: "Are you signing in to " + app + "?", Who: u.UPN,
		Text:    "It runs on the device that shows this code. Go on only if you began this yourself.",
		Buttons: []button{{Name: "answer", Value: "yes", Label: "Yes, sign it in"}, {Name: "answer", Value: "no", Label: "No", Other: true}}})
}

func (s *Service) askLogout(w http.ResponseWriter, r *http.Request, f flow, u *User) error {
	return s.form(w, r, http.StatusOK, stepLogout, f, nil, view{Title: "Sign out?", Who: u.UPN, Buttons: []button{{Label: "Sign out", Focus: true}}})
}

// securityView is what the page of one's own methods shows.
type securityView struct {
	Site, Who, Said, Error, Ctx string
	Action                      template.URL
	Methods                     []methodView
	Left                        int
	Made                        string
	Recent                      []recentView
	Style                       template.CSS
}

type methodView struct{ ID, Name, Kind, Added, Used string }

type recentView struct{ When, What, How, Outcome string }

func (s *Service) askSecurity(w http.ResponseWriter, r *http.Request, f flow, u *User, m methods, said, problem string) error {
	f.Step = stepSecurity
	sealed, err := s.seal(f)
	if err != nil {
		return s.fault(w, r, err)
	}
	v := securityView{Site: s.Site.Host(), Who: u.UPN, Said: said, Error: problem, Ctx: sealed, Action: securityPath, Left: len(m.Recovery), Style: s.style.css}
	if v.Left > 0 {
		v.Made = onDay(m.Made)
	}
	for _, k := range m.Passkeys {
		v.Methods = append(v.Methods, methodView{k.ID, k.Name, "Passkey", onDay(k.Created), onDay(k.Used)})
	}
	for _, a := range m.Apps {
		v.Methods = append(v.Methods, methodView{a.ID, a.Name, "Authenticator app", onDay(a.Created), onDay(a.Used)})
	}
	recent, err := s.signInsOf(r.Context(), u)
	if err != nil {
		return s.fault(w, r, err)
	}
	for _, e := range recent {
		v.Recent = append(v.Recent, recentView{e.Time.UTC().Format("2006-01-02 15:04 UTC"), e.Item, e.Credential, e.Decision})
	}
	return s.render(w, statusOf(problem), "", s.style.security, v, false)
}

func onDay(t time.Time) string { return t.UTC().Format("2006-01-02") }

// postForm answers by a form that the person sends on with a button
// (response_mode=form_post): a page without script can't do it by itself.
func (s *Service) postForm(w http.ResponseWriter, a *authorization, values map[string][]string) error {
	hidden := map[string]string{}
	for name, v := range values {
		hidden[name] = v[0]
	}
	return s.show(w, http.StatusOK, a.redirect, view{Title: "Signed in", Text: "Go on to the application.", App: a.client.app.Name,
		Action: template.URL(a.redirect), Hidden: hidden, Buttons: []button{{Label: "Continue"}}})
}
