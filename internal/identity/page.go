package identity

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"html/template"
	"net/http"
	"regexp"
)

//go:embed page.html
var pageText string

//go:embed page.css
var styleText string

// style is the one style of all pages, with the hash by which it is allowed.
type style struct {
	page *template.Template
	css  template.CSS
	hash string
}

func newStyle() (style, error) {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return style{}, err
	}
	sum := sha256.Sum256([]byte(styleText))
	return style{t, template.CSS(styleText), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"}, nil
}

// field is one input of a page's form.
type field struct {
	Name, Label, Type, Auto, Value string
	Focus                          bool
}

// button sends a page's form.
type button struct{ Name, Value, Label string }

// view is what a page shows. Pages have no script, fetch nothing, and work with
// a keyboard and a screen reader.
type view struct {
	Title, Site, Who, App, Text, Error, Small string
	Action                                    template.URL
	Hidden                                    map[string]string
	Fields                                    []field
	Buttons                                   []button
	Style                                     template.CSS
}

var originForm = regexp.MustCompile(`^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?`)

// pageHeaders shut the page against scripts, frames and caches. to is where the
// form may lead besides here, for browsers hold redirects of forms against it.
func pageHeaders(w http.ResponseWriter, to string, st style) {
	action := "'self'"
	if o := originForm.FindString(to); o != "" {
		action += " " + o
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+st.hash+"; form-action "+action+"; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

func (s *Service) show(w http.ResponseWriter, status int, to string, v view) error {
	v.Site, v.Style = s.Site.Host(), s.style.css
	var b bytes.Buffer
	if err := s.style.page.Execute(&b, v); err != nil {
		return err
	}
	pageHeaders(w, to, s.style)
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
	return s.show(w, p.status, "", view{Title: "The sign-in can't go on", Error: p.text, Small: p.description()[:min(len(p.description()), len("AADSTS0000000"))]})
}

// form is a page with a form that carries the flow.
func (s *Service) form(w http.ResponseWriter, r *http.Request, status int, path string, f flow, a *authorization, v view) error {
	sealed, err := s.seal(f)
	if err != nil {
		return s.fault(w, r, err)
	}
	v.Action, v.Hidden = template.URL(path), map[string]string{"ctx": sealed}
	to := ""
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
	return s.form(w, r, statusOf(problem), "/common/login", f, a, view{Title: "Sign in", Error: problem, Fields: []field{
		{Name: "login", Label: "User name", Type: "text", Auto: "username", Value: name, Focus: name == ""},
		{Name: "passwd", Label: "Password", Type: "password", Auto: "current-password", Focus: name != ""},
	}, Buttons: []button{{Label: "Sign in"}}})
}

func (s *Service) askChange(w http.ResponseWriter, r *http.Request, f flow, a *authorization, problem string) error {
	return s.form(w, r, statusOf(problem), "/common/changepassword", f, a, view{Title: "Choose a new password", Error: problem,
		Text: "Somebody else knows the password that you used. Choose one that only you know: at least 12 characters.", Fields: []field{
			{Name: "newpasswd", Label: "New password", Type: "password", Auto: "new-password", Focus: true},
			{Name: "confirmnewpasswd", Label: "New password, once more", Type: "password", Auto: "new-password"},
		}, Buttons: []button{{Label: "Change and sign in"}}})
}

func (s *Service) askDevice(w http.ResponseWriter, r *http.Request, f flow, u *User, problem string) error {
	return s.form(w, r, statusOf(problem), "/common/oauth2/deviceauth", f, nil, view{Title: "Sign in a device", Who: u.UPN, Error: problem,
		Text: "Type the code that your own device shows. If somebody else gave you the code, stop: it would sign them in as you.", Fields: []field{
			{Name: "otc", Label: "Code", Type: "text", Auto: "off", Focus: true},
		}, Buttons: []button{{Label: "Next"}}})
}

func (s *Service) askConfirm(w http.ResponseWriter, r *http.Request, f flow, u *User, app string) error {
	return s.form(w, r, http.StatusOK, "/common/oauth2/deviceconfirm", f, nil, view{Title: "Are you signing in to " + app + "?", Who: u.UPN,
		Text:    "It runs on the device that shows this code. Go on only if you began this yourself.",
		Buttons: []button{{"answer", "yes", "Yes, sign it in"}, {"answer", "no", "No"}}})
}

func (s *Service) askLogout(w http.ResponseWriter, r *http.Request, f flow, u *User) error {
	return s.form(w, r, http.StatusOK, "/common/oauth2/logout", f, nil, view{Title: "Sign out?", Who: u.UPN, Buttons: []button{{Label: "Sign out"}}})
}

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
