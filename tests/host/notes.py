"""What the templates tell a creator, in Markdown. Short: the host's letters are small."""

NOTES: dict[str, str] = {
    "Lip-sync a photo": """\
## Press Run: the photo speaks

Nothing is downloaded.

## Then take your own

The green node has the demo. *Your image* and *Your audio* wait beside it, bypassed (purple): select one, press **Ctrl+B**, and choose a file.

They are *Load Image* and *Load Audio (LipSync)*; a node of another pack may take their place.

## Good to know

- The result is as long as the speech.
- A face that looks into the camera and fills a good part of the picture works best.
- Images stay in memory. More than a minute? Take the template *Lip-sync a video*.
""",
    "Lip-sync a video": """\
## Press Run: a video is dubbed

Nothing is downloaded.

## Then take your own

The green node has the demo. *Your video* and *Your audio* wait beside it, bypassed (purple): select one, press **Ctrl+B**, and choose a file.

They are *Load Video* and *Load Audio (LipSync)*; a node of another pack may take their place.

## Would you like it better?

- *mask*: mouth changes least. Take face where the old mouth shows at the edge.
- *model*: the public Wav2Lip weights are a download, for research and personal use only.
- *longer*: what the picture does when the speech is longer.

Without *Load LipSync Model* and *Blend Settings* it runs as well.
""",
    "Lip-sync without a trace": """\
## Press Run: nothing gives the dub away

The new words begin after 1.5 s: until then the mouth rests.

## Then take your own

The green node has the demo. *Your video* and *Your audio* wait beside it, bypassed (purple): select one, press **Ctrl+B**, and choose a file.

They are *Load Video* and *Load Audio (LipSync)*.

*Shift Audio* only moves the words of the demo: take it out.

## Three settings do it

- *silence* close: between words lips are closed. keep shows the old mouth.
- *occlusion* compare: hands, microphones and hair stay before the mouth.
- *What is redrawn* shows the mask in green. Is a beard beside it? *mask* lower.

Soft teeth? *Load Face Restorer*, to *restorer*.
""",
    "Lip-sync two speakers": """\
## Press Run: two people talk

First the left one, then the right one.

## Then take your own

The green node has the demo. *Your video* (*Load Video*) waits beside it, bypassed (purple): select it, press **Ctrl+B**, and choose a file.

Then a **Load Audio (LipSync)** for each person, to *audio* of *Left person* and *Right person*.

## Who is who?

The preview numbers the people. *rule* chooses by place, by number (index), at a point, or by a picture (like image).

## More people

One more *Select Face* in the chain is one more speaker.

## Why Shift Audio?

The demo has one speech: its end at once for the left, its beginning 4.5 s later for the right. You may take both out.
""",
    "Lip-sync a long video": """\
## Press Run: four seconds are dubbed

## Then take your own

The green node has the demo. *Your video* and *Your audio* wait beside it, bypassed (purple): select one, press **Ctrl+B**, and choose a file.

They are *Load Video* and *Load Audio (LipSync)*.

Try *duration* 10 first. If it looks good, write 0: the whole video.

## Why it stays small

A VIDEO goes from file to file: of its picture, an hour takes no more memory than a minute.

Sound is held in memory: an hour of 48 kHz stereo takes 1.4 GB. Results stay in ComfyUI's temp folder while it needs them.

Never put *Get Video Components* in between: it unpacks every frame.

## Good to know

- *every* 10 looks for faces in each tenth frame. Where heads move fast, take 5 or less.
- *longer* trim: the result ends with the picture.
""",
    "Lip-sync repair of a clip": """\
## Press Run: sound and lips meet

The sound of the demo is 200 ms late. It is measured, moved, and measured again.

## Then take your own

The green node has the demo. *Your video* (*Load Video*) waits beside it, bypassed (purple): select it, press **Ctrl+B**, and choose a file. Its own sound is measured and moved.

## Good to know

- The picture is copied, not encoded again.
- The offset counts frames of 25 a second, whatever the clip has: leave *fps* at 25.
- No verdict? Then the offset is 0, nothing moves, and the text says why.
""",
    "Lip-sync check of a folder": """\
## Press Run: clips are scored

One of the demo is out of sync: which?

## Then take your own

Put videos into a folder inside ComfyUI's *input* folder, press **R**, and choose it in the green node.

The rest runs once for each.

## Good to know

- The verdict says by how much the sound is early or late.
- *LSE-D*: lower is better. *LSE-C*: higher is. Compare figures of one scorer only.
- *syncnet* is the scorer of papers (a download).
""",
    "Lip-sync a folder": """\
## Press Run: every clip of a folder is dubbed

Nothing is downloaded. The demo's clips speak their own sound.

## Then take your own

Put videos into a folder inside ComfyUI's *input* folder, press **R**, and choose it in the green node.

## Good to know

- Each result has the name of its source: *stems* goes to *filename_prefix*.
- One speech for all: **Load Audio (LipSync)**, to *audio* of *LipSync Dub*.
- A clip without a face or sound is handed on as it is, and the report says why. The others go on.
""",
    "Lip-sync app, face and voice": """\
## A face, a voice, Run

This template opens in App mode: choose a picture and a speech, and press **Run**. Nothing is downloaded.

## The graph behind it

*Load Image*, *Load Audio (LipSync)*, *LipSync Dub*, *Create Video*, *Save Video*: the template *Lip-sync a photo* with your media in place of the green node's demo.

## Good to know

- The result is as long as the speech.
- A face that looks into the camera and fills a good part of the picture works best.
- A video as face? Take the template *Lip-sync a video*.
""",
}
